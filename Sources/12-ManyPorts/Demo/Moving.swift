import CompletionPorts
import Contexts
import Glibc
import Kernel
import ManyPorts
import ManyPortsPitfalls
import Reordering
import Stage
import Timeline

/// One connection that changes its lane: drawn from the run.
func showMove(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("One connection moves to another port, with a read pending and bytes on their way")
    let moved = Gate()
    var choices = PortSet.Options()
    (choices.ports, choices.interval, choices.streams.port.driver) = (2, nil, options.driver)
    choices.moved = { _, from, to in
        Recorder.note("nothing is under way: from port \(from) to port \(to)")
        moved.open()
    }
    let set = try PortSet(choices)
    let pair = try Pair()
    let connection = try set.hub.adopt(pair.server, handler: Echo())
    Recorder.start()
    var isHeard = true
    for _ in 1...2 { isHeard = pair.client.isAnswered() && isHeard }
    Recorder.note("reassign")
    try set.reassign(connection, to: 1)
    isHeard = pair.client.isAnswered() && isHeard
    let isMoved = moved.pass()
    for _ in 1...2 { isHeard = pair.client.isAnswered() && isHeard }
    let recording = Recorder.stop()
    terminal.draw(recording)
    terminal.say()
    terminal.claim(
        "the connection is on port 1, and every word came back",
        holds: isHeard && isMoved && set.place(of: connection) == 1)
    pair.client.close()
    terminal.claim("nothing is left", holds: set.stop())
    if let path = options.value(.trace) {
        try writeFile(path, recording.trace(process: options.usage.program))
    }
    if let path = options.value(.svg), options.value(picture) == "move" {
        try writeFile(
            path,
            recording.svg(
                title: "One connection moves from port 0 to port 1",
                description:
                    "Its reads are called off, the last packets are taken in by port 0's worker, and from then "
                    + "on port 1's worker has all of its packets."))
    }
}

/// Moves by force, as many as there is time for, while the clients talk.
func showMoves(_ options: Stage.Options, on terminal: Terminal) throws {
    let wanted = 300
    terminal.heading("\(wanted) forced moves of four connections, while all of them talk")
    var choices = options.portOptions(plan: .off, ports: 3)
    (choices.ports, choices.interval, choices.balance.plan) = (max(2, choices.ports), nil, .off)
    choices.streams.pendingReads = 4
    let set = try PortSet(choices)
    let isOver = Gate()
    var clients: [Streamer] = []
    for _ in 1...4 {
        let pair = try Pair()
        try set.hub.adopt(pair.server, handler: Echo())
        clients.append(Streamer(pair.client))
    }
    for client in clients { client.start { isOver.isOpen } }
    let begin = monotonicNanoseconds()
    let limit = Deadline.after(.seconds(4))
    var turn = 0
    while set.counters.moves.made < wanted, !limit.hasPassed {
        // To another one each time.
        turn += 1
        for connection in set.hub.connections {
            let place = set.place(of: connection) ?? 0
            let step = 1 + turn % (set.ports.count - 1)
            try? set.reassign(connection, to: (place + step) % set.ports.count)
        }
        usleep(500)
    }
    let seconds = Double(monotonicNanoseconds() - begin) / 1e9
    isOver.open()
    let isWhole = clients.map { $0.finish() }
    let isClean = set.stop()
    let counters = set.counters
    terminal.table(
        ["port", "packets", "bytes"],
        counters.ports.enumerated().map { ["\($0)", readable($1.packets), readable($1.bytes)] })
    terminal.say(
        "\(readable(counters.moves.made)) moves in \(readable(seconds)) s; "
            + "\(readable(clients.reduce(0) { $0 + $1.heard })) bytes came back")
    terminal.claim(
        "every byte is in its place, none is missing, none came twice",
        holds: isWhole.allSatisfy { $0 } && isClean && counters.moves.made > 0)
}

/// What one worker for each port makes unnecessary.
func showOrder(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("The same streams: two workers on one port, and two ports with one worker each")
    var rows: [[String]] = []
    var isRight = true
    for (name, ports, workers) in [("one port, two workers", 1, 2), ("two ports, one worker each", 2, 1)] {
        var choices = PortSet.Options()
        (choices.ports, choices.workersEach, choices.interval) = (ports, workers, nil)
        choices.streams.port.driver = options.driver
        (choices.streams.pendingReads, choices.streams.chunkCapacity) = (4, 64)
        choices.streams.maximumReadSize = 64
        let set = try PortSet(choices)
        let handlers = (1...4).map { _ in Changes() }
        let pairs = try Pair.several(4)
        for (pair, handler) in zip(pairs, handlers) { try set.hub.adopt(pair.server, handler: handler) }
        inThreads(4) { index in
            let bytes = [UInt8](repeating: 1, count: 64_000)
            try? pairs[index].client.say(bytes)
        }
        let isThere = eventually { handlers.allSatisfy { $0.counts.bytes == 64_000 } }
        let changes = handlers.reduce(0) { $0 + $1.counts.changes }
        let chunks = handlers.reduce(0) { $0 + $1.counts.chunks }
        for pair in pairs { try pair.client.abort() }
        isRight = isRight && isThere && set.stop()
        // The windows of those that are over.
        let window = set.hub.counters.window
        if workers == 1 { isRight = isRight && window.early == 0 && changes == 0 }
        rows.append([
            name, readable(chunks), readable(window.early), "\(window.mostWaiting)", readable(changes),
        ])
    }
    terminal.table(
        ["", "chunks", "came early", "in a window at most", "another thread than before"], rows)
    terminal.claim(
        "with one worker each, no chunk ever came early, and no connection changed its thread", holds: isRight
    )
}

/// Counts how often another thread calls it than the time before.
private final class Changes: StreamHandler {
    private let state = Guarded((bytes: 0, chunks: 0, changes: 0, thread: Int32(0)))

    var counts: (bytes: Int, chunks: Int, changes: Int) { state.locked { ($0.bytes, $0.chunks, $0.changes) } }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        let thread = Kernel.Thread.currentID
        state.locked {
            $0.bytes += chunk.contents.count
            $0.chunks += 1
            if $0.thread != thread, $0.thread != 0 { $0.changes += 1 }
            $0.thread = thread
        }
    }
}
