import CompletionPorts
import Glibc
import Kernel
import Stage
import Timeline

/// Two workers at one port, nine steps: who waits, and who is given the next packet.
///
/// The packets are those of three receives, each on a connection of its own and posted by neither worker: over io_uring
/// the kernel finishes a receive in the thread that posted it, and would wake that one for it.
final class NineSteps: @unchecked Sendable {
    private let port: CompletionPort
    private let pairs: [Pair]
    private let receives: [Receive]
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var waiting: [String] = []
    private var takers: [String] = []
    private var threads: [String: Int32] = [:]

    /// A receive, and the end of its handling.
    private final class Receive: Overlapped, @unchecked Sendable {
        let handled = Gate()
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 16)
        deinit { memory.deallocate() }
    }

    init(driver: DriverKind) throws {
        var options = CompletionPort.Options()
        options.driver = driver
        port = try CompletionPort(concurrency: 2, options: options)
        pairs = try Pair.several(3)
        receives = pairs.map { _ in Receive() }
    }

    func play(on terminal: Terminal, saving options: Stage.Options) throws {
        terminal.heading("Nine steps: the newest waiter goes first")
        terminal.say(
            "Workers A and B, a limit of \(port.concurrency), three receives pending. driver: \(port.driverKind)"
        )
        terminal.say()

        Recorder.start()
        for (index, receive) in receives.enumerated() {
            Recorder.label(receive.identity, "packet \(index + 1)")
            try port.associate(pairs[index].server, key: UInt(index))
            try pairs[index].server.receive(receive, into: receive.memory)
        }
        var rows: [[String]] = []
        var holds = true
        func step(_ words: String, waiting wanted: [String]) {
            // The port counts its waiters itself; who they are, the workers say.
            holds = eventually { areAsleep(wanted) } && holds
            rows.append(["\(rows.count + 1)", words, ""])
            rows.append(["\(rows.count + 1)", "waiting, the newest last:", names.joined(separator: " ")])
            usleep(NineSteps.pause)
        }

        let a = start("A")
        _ = eventually { areAsleep(["A"]) }
        let b = start("B")
        step("A asks the port and waits; then B does", waiting: ["A", "B"])
        try complete(1)
        step("the first receive completes: \(taker(1)) gets its packet", waiting: ["A"])
        receives[0].handled.open()
        step("\(taker(1)) is done with it and asks again", waiting: ["A", "B"])
        try complete(2)
        step("the next receive completes: \(taker(2)) gets it again", waiting: ["A"])
        try complete(3)
        rows.append(["9", "one more, while \(taker(2)) is busy: \(taker(3)) gets it", ""])
        usleep(NineSteps.pause)
        for receive in receives { receive.handled.open() }
        holds = eventually { port.workers.waiting == 2 } && holds
        let recording = Recorder.stop()
        port.close()
        a.join()
        b.join()

        terminal.table(["step", "what happens", "at the port"], rows)
        terminal.say()
        terminal.draw(recording)
        terminal.say()
        let order = monitor.locked { takers }
        terminal.claim(
            "B, the newest waiter, took packets 1 and 2; A stayed asleep",
            holds: order.prefix(2) == ["B", "B"])
        terminal.claim("A was woken for packet 3 only, since B was busy", holds: order.last == "A")
        terminal.claim("at each step the right workers waited", holds: holds)
        try options.save(
            recording, title: "The newest waiter goes first",
            description: "Worker B, who began to wait last, handles the first two packets; A gets the third.")
    }

    /// Long enough to be seen in the picture.
    private static let pause: UInt32 = 4_000

    /// A byte arrives, and a receive completes. Returns when a worker has its packet.
    private func complete(_ number: Int) throws {
        try [UInt8(number)].withUnsafeBytes { _ = try pairs[number - 1].client.sendNow($0) }
        _ = eventually { monitor.locked { takers.count } == number }
    }

    private func taker(_ number: Int) -> String {
        monitor.locked { takers.count >= number ? takers[number - 1] : "nobody" }
    }

    /// Whether just these wait, in this order, and have really fallen asleep: the kernel knows them only then.
    private func areAsleep(_ wanted: [String]) -> Bool {
        let ids = monitor.locked { wanted.compactMap { threads[$0] } }
        return names == wanted && port.workers.waiting == wanted.count
            && ids.allSatisfy { Kernel.Thread.state(of: $0) == .blocked }
    }

    private var names: [String] { monitor.locked { waiting } }

    private func start(_ name: String) -> Kernel.Thread {
        startThread(name) { [self] in
            Recorder.nameThread("worker \(name)")
            monitor.locked { threads[name] = Kernel.Thread.currentID }
            while true {
                monitor.locked { waiting.append(name) }
                guard case .completed(let packet) = port.dequeue(),
                    let receive = packet.operation as? Receive
                else { return }
                monitor.locked {
                    waiting.removeAll { $0 == name }
                    takers.append(name)
                }
                receive.handled.pass()
                Recorder.mark(.handled, receive.identity)
            }
        }
    }
}
