import Glibc
import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage
import Timeline

/// Three clients and two accepts: one client speaks at once, one late, and one not at all.
func playThreeClients(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Two accepts, three clients")
    terminal.say("One client speaks at once, one after 10 ms, and one not at all. driver: \(options.driver)")
    var choices = serverOptions(options)
    choices.workers = 1
    choices.pool.initial = 2
    choices.pool.lowWater = 0
    choices.pool.maximum = 2
    choices.pool.silenceLimit = .milliseconds(30)
    choices.pool.lookInterval = .milliseconds(5)
    Recorder.start()
    let server = try PrepostedServer(options: choices)
    let quick = try Caller(to: server.address)
    let isQuickServed = try quick.isAnswered("quick")
    let late = try Caller(to: server.address)
    let silent = try Caller(to: server.address)
    _ = late.isEnded(within: .milliseconds(10))
    let isLateServed = try late.isAnswered("late")
    let isSilentEnded = silent.isEnded()
    // Two accepts at the start, and one more for each that came back. The picture goes on until the last one is seen
    // to be pending.
    let isPostedAgain = eventually { server.accepts.posted == 5 }
    usleep(5_000)
    Recorder.note("two accepts wait again")
    let recording = Recorder.stop()
    let accepts = server.accepts
    server.stop()
    terminal.say()
    terminal.draw(recording)
    terminal.say()
    terminal.claim("every client that spoke was served", holds: isQuickServed && isLateServed)
    terminal.claim(
        "the silent one was ended, and its accept waits for the next client",
        holds: isSilentEnded && isPostedAgain && accepts.swept == 1 && accepts.pending == 2)
    try options.save(
        recording, title: "Two accepts, three clients",
        description:
            "An accept stays pending from its post until its client speaks, or is ended for its silence.")
}
