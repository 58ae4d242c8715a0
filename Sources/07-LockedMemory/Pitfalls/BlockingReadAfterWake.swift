import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: after the zero-byte receive there are bytes, surely, and so the reading may block.
final class BrokenBlockingReader: @unchecked Sendable {
    let port: CompletionPort
    private let sockets: [Socket]
    private let waits: [Overlapped]

    init(_ driver: DriverKind, _ sockets: [Socket]) throws(SystemError) {
        port = try CompletionPort.on(driver, concurrency: 1)
        self.sockets = sockets
        waits = sockets.map { _ in Overlapped() }
        for (index, socket) in sockets.enumerated() {
            try socket.setBlocking(true)
            try port.associate(socket, key: UInt(index))
            try socket.receive(waits[index], into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
        }
    }

    /// The only worker: serves one wait of each connection.
    func work(beforeReading: () -> Void) throws(SystemError) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 1)
        defer { memory.deallocate() }
        for _ in sockets {
            let packet = try port.next()
            let socket = sockets[Int(packet.key)]
            if packet.key == 0 { beforeReading() }
            guard let count = try socket.receiveNow(into: memory), count > 0 else { continue }
            _ = try socket.sendNow(UnsafeRawBufferPointer(rebasing: memory[..<count]))
        }
    }
}

/// After a zero-byte receive a blocking read waits for data that another reader took.
public enum BlockingReadAfterWake {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "blocking-read-after-wake",
        title: "after a zero-byte receive a blocking read waits for bytes that another reader took",
        broken: { driver in
            let (first, second) = (try Pair(), try Pair())
            let reader = try BrokenBlockingReader(driver, [first.server, second.server])
            let isStolen = Gate()
            try first.client.say("hello")
            let worker = startThread("worker") {
                try? reader.work {
                    // Between the packet and the read, another reader is quicker.
                    let stolen = try? stealBytes(sentBy: first.client)
                    if stolen == 5 { isStolen.open() }
                }
            }
            let wasStolen = isStolen.pass()
            let isAnswered = second.client.isAnswered(within: .milliseconds(200))
            // Whatever the first client says next lets the worker go on.
            try first.client.say("again")
            worker.join()
            let late = (try? second.client.hear(5)) ?? ""
            reader.port.close()
            return Observation(
                happened: wasStolen && !isAnswered && late == "hello",
                lines: [
                    "a wait completes, another reader takes the bytes, and the worker reads: it waits",
                    "a second client says hello: \(isAnswered ? "answered" : "no answer in 200 ms")",
                    "the first client speaks again, the worker is free: the second hears \(late)",
                ])
        },
        fixed: { driver in
            let thief = Thief()
            let server = try BudgetedServer.on(driver, .zeroByte, budget: 64) { thief.steal() }
            let (first, second) = (try server.clients(1)[0], try server.clients(1)[0])
            thief.watch(first)
            try first.say("hello")
            let wasStolen = thief.hasStolen.pass()
            // Nothing more comes before the worker has looked and found nothing.
            let isVain = eventually { server.hub.counters.reads.vainWaits == 1 }
            let isAnswered = second.isAnswered()
            // Would-block meant: wait again. The next words are heard.
            let isHeard = first.isAnswered("again")
            let vain = server.hub.counters.reads.vainWaits
            let isClean = server.stop()
            return Observation(
                happened: !wasStolen || !isVain || !isAnswered || !isHeard || vain != 1 || !isClean,
                lines: [
                    "a wait completes, another reader takes the bytes, and the worker reads: would block",
                    "waits in vain: \(vain); a second client says hello: "
                        + "\(isAnswered ? "answered" : "no answer")",
                    "the first client speaks again: \(isHeard ? "answered" : "no answer")",
                ])
        })

    /// Takes the first bytes of one client away, once.
    private final class Thief: @unchecked Sendable {
        let hasStolen = Gate()
        private let lock = Lock()
        private var victim: Socket?  // under the lock

        func watch(_ client: Socket) { lock.locked { victim = client } }

        func steal() {
            lock.locked {
                guard let client = victim, (try? stealBytes(sentBy: client)) == 5 else { return }
                victim = nil
                hasStolen.open()
            }
        }
    }
}
