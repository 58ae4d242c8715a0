import Kernel
import OneThreadPerClient
import OneThreadPerClientPitfalls
import Stage
import Timeline

/// The story of the chapter: what each server costs, whom each server keeps waiting, and a look ahead.
func tellStory(clients wanted: Int) throws {
    let most = Resources.clientsThatFit(wanted, descriptorsEach: 1)
    if most < wanted { terminal.say("descriptors suffice for \(most) of \(wanted) clients") }
    let steps = [1, 10, 100].filter { $0 < most } + [most]

    terminal.heading("What \(most) silent clients cost")
    let costs = try ServerKind.allCases.map { try Cost(of: $0, at: steps) }
    show(costs, steps)
    if let path = options.value(.svg) { try writeFile(path, Curves(costs, steps).svg) }

    terminal.heading("One client says nothing, another one asks")
    try twoClients()

    terminal.heading("A look ahead: what is done, and the bytes with it")
    try lookAhead()
}

/// What a server takes at each number of clients, measured in a process of its own.
struct Cost {
    let kind: ServerKind
    var figures: [MeasuredServer.Figures] = []
    /// Clients that were answered at the last step.
    var answered = 0
    /// The share of a processor that the silence takes at the last step.
    var idle = 0.0
    var ended = false

    init(of kind: ServerKind, at steps: [Int]) throws {
        self.kind = kind
        let server = try MeasuredServer(kind, driver: options.driver)
        var callers: [Caller] = []
        defer { for caller in callers { caller.leave() } }
        for step in steps {
            let new = try (callers.count..<step).map { _ in try Caller(to: server.address) }
            for caller in new { try caller.say("?") }
            callers += new
            // Who waits for a turn will not be answered; there is no need to wait long to see it. The first one will be.
            let waitsForTurn = kind == .turn && answered > 0
            let deadline = Deadline.after(waitsForTurn ? .milliseconds(200) : .seconds(10))
            for caller in new {
                let left = Duration.nanoseconds(Int64(clamping: deadline.remaining))
                if try caller.hear(1, within: left) == "?" { answered += 1 }
            }
            figures.append(try server.figures())
        }
        idle = try server.idleShare()
        // What another program has spoilt is measured again, four times at most.
        for _ in 0..<4 where kind == .polling ? idle < 0.5 : idle >= 0.01 { idle = try server.idleShare() }
        ended = server.end()
    }

    /// Bytes of memory that a client adds.
    func memoryEach(_ steps: [Int]) -> Int {
        guard steps.count > 1 else { return 0 }
        return max(0, figures.last!.resident - figures[0].resident) / (steps.last! - steps[0])
    }
}

private func show(_ costs: [Cost], _ steps: [Int]) {
    let last = steps.last!
    terminal.table(
        ["server"] + steps.map { "threads at \($0)" } + ["memory each", "idle CPU", "answered"],
        costs.map { cost in
            [cost.kind.rawValue] + cost.figures.map { "\($0.threads)" }
                + [kibibytes(cost.memoryEach(steps)), percent(cost.idle), "\(cost.answered)"]
        })
    terminal.explain(
        "memory each: resident memory of the process that a client adds; a thread's stack within the system, 16 KiB more, "
            + "is not in it. idle CPU: of one processor, while no client says anything.")
    terminal.say()
    let cost = Dictionary(uniqueKeysWithValues: costs.map { ($0.kind, $0) })
    terminal.claim(
        "thread: \(last) clients take \(cost[.thread]!.figures.last!.threads) threads",
        holds: cost[.thread]!.figures.last!.threads >= last)
    terminal.claim(
        "turn: of \(last) clients \(cost[.turn]!.answered) is answered", holds: cost[.turn]!.answered == 1)
    terminal.claim("polling: silence takes a processor", holds: cost[.polling]!.idle > 0.5)
    for kind in [ServerKind.readiness, .completion] {
        let threads = cost[kind]!.figures.map(\.threads)
        terminal.claim(
            "\(kind.rawValue): all clients are answered, the threads stay \(threads.last!), silence takes nothing",
            holds: cost[kind]!.answered == last && threads.first == threads.last && cost[kind]!.idle < 0.01)
    }
    terminal.claim("every server stopped with all its clients connected", holds: costs.allSatisfy(\.ended))
}

private func twoClients() throws {
    for kind in ServerKind.allCases {
        let server = try kind.start(driver: options.driver)
        defer { server.stop() }
        let silent = try Caller(to: server.address)
        let talking = try Caller(to: server.address)
        let asked = monotonicNanoseconds()
        try talking.say("hello")
        let patience = Duration.milliseconds(kind == .turn ? 200 : 10_000)
        let isAnswered = try talking.hear(5, within: patience) == "hello"
        let time = fixed(Double(monotonicNanoseconds() - asked) / 1e6, 2)
        if kind == .turn {
            silent.leave()
            let isAnsweredLater = try talking.hear(5) == "hello"
            terminal.claim(
                "turn: no answer within 200 ms, and one as soon as the silent client hangs up",
                holds: !isAnswered && isAnsweredLater)
        } else {
            terminal.claim("\(kind.rawValue): the answer comes after \(time) ms", holds: isAnswered)
            silent.leave()
        }
        talking.leave()
    }
}

private func lookAhead() throws {
    Recorder.nameThread("story")
    Recorder.start()
    let server = try CompletionServer(driver: options.driver)
    let callers = try (0..<3).map { _ in try Caller(to: server.address) }
    var answers = 0
    for text in ["one", "two"] {
        // The first of the three stays silent. Its receive is pending all the time, and nobody waits in it.
        for caller in callers[1...] {
            try caller.say(text)
            if try caller.hear(3) == text { answers += 1 }
        }
    }
    server.stop()
    for caller in callers { caller.leave() }
    let recording = Recorder.stop()
    terminal.draw(recording)
    if let path = options.value(.trace) { try writeFile(path, recording.trace(process: usage.program)) }
    let ready = try Chapter00.pitfalls.last!.broken(options.driver)
    let done = try Chapter00.pitfalls.last!.fixed(options.driver)
    terminal.say()
    for line in ready.lines { terminal.say("readiness:  \(line)") }
    for line in done.lines { terminal.say("completion: \(line)") }
    terminal.claim("told that it may read, a thread was stuck in the call", holds: ready.happened)
    terminal.claim("told that a receive was done, the bytes were in its buffer", holds: !done.happened)
    terminal.claim("two clients were answered twice each past a silent one", holds: answers == 4)
}

/// A share as a percentage with one digit.
private func percent(_ share: Double) -> String { fixed(share * 100, 1) + " %" }

private func kibibytes(_ bytes: Int) -> String { fixed(Double(bytes) / 1024, 1) + " KiB" }

/// A number with so many digits behind the point.
func fixed(_ value: Double, _ digits: Int) -> String {
    let scale = (0..<digits).reduce(1) { scale, _ in scale * 10 }
    let whole = Int((value * Double(scale)).rounded())
    let rest = String(whole % scale)
    return "\(whole / scale)." + String(repeating: "0", count: digits - rest.count) + rest
}
