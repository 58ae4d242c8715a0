import Framing
import FramingPitfalls
import Glibc
import Kernel
import Stage

let frames = Option.choice(
    "frames", ["lines", "u32be", "u32le"],
    "what --serve gives back: lines, or frames with 4 bytes in front that count what follows (lines)")
let options = Stage.Options.ofThisProgram(
    Usage(
        "06-framing",
        "A stream of messages, cut at every place there is: the same messages, however it is cut.",
        options: [
            .serve, .address, .workers, .concurrency, .poll, frames, .driver,
            .output("svg", "write the messages in their chunks as a picture"), .trace, .plain,
        ],
        pitfalls: Chapter06.pitfalls))
let terminal = Terminal(options)

do {
    if options.serve != nil {
        try serve(options, on: terminal)
    } else if let slug = options.pitfall {
        Pitfalls.play(slug, from: Chapter06.pitfalls, driver: options.driver, on: terminal)
    } else {
        terminal.heading("Six messages in chunks of 24 bytes, as they came")
        let figure = try Figure(texts, chunk: 24, options.driver)
        figure.draw(on: terminal)
        if let path = options.value(.svg) { try writeFile(path, figure.svg()) }
        terminal.claim("six messages, as they were sent", holds: figure.witness.messages == texts)
        let cuts = try Cuts()
        cuts.show(on: terminal)
        cuts.showPairs(on: terminal)
        try playServer(options, on: terminal)
        try showAnswers(options, on: terminal)
    }
} catch {
    fail("06-framing: \(error)")
}
terminal.finish()
