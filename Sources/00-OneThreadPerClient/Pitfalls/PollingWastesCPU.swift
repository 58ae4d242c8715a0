import Glibc
import Kernel
import OneThreadPerClient
import Stage
import Synchronization

/// One thread that asks everybody in a loop. Nobody waits for anybody, and the fan starts to turn.
final class BrokenAsksAllTheTime: Sendable {
    private let clients: [Socket]
    private let isOver = Atomic<Bool>(false)
    /// Questions that found nothing.
    let asked = Atomic<Int>(0)

    init(_ clients: [Socket]) { self.clients = clients }

    func run() {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { buffer in
            while !isOver.load(ordering: .relaxed) {
                for client in clients {
                    guard let count = try? client.receiveNow(into: buffer), count > 0 else {
                        asked.add(1, ordering: .relaxed)
                        continue
                    }
                    _ = try? client.sendNow(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                }
            }
        }
    }

    func end() { isOver.store(true, ordering: .relaxed) }
}

/// Ten clients are connected and nobody says anything. How much of a processor does that take? What is counted is
/// the whole process, so it needs one of its own.
enum PollingWastesCPU {
    private static let clients = 10
    private static let idleTime = Duration.milliseconds(300)

    static func broken(_ driver: DriverKind) throws -> Observation {
        let pairs = try (0..<clients).map { _ in try connectedPair() }
        let server = BrokenAsksAllTheTime(pairs.map(\.server))
        let thread = startThread("asking") { server.run() }
        defer {
            server.end()
            thread.join()
        }
        let share = Idle.share(over: idleTime) { $0 > 0.5 }
        let asked = server.asked.load(ordering: .relaxed)
        return Observation(
            happened: share > 0.5,
            lines: [
                "\(clients) silent clients: \(percent(share)) of a processor, "
                    + "\(asked) receives that found nothing"
            ])
    }

    static func fixed(_ driver: DriverKind) throws -> Observation {
        let results = try [ServerKind.readiness, .completion].map { kind in
            let server = try kind.start(driver: driver)
            defer { server.stop() }
            let callers = try (0..<clients).map { _ in try Caller(to: server.address) }
            defer { for caller in callers { caller.leave() } }
            // Answered once, so that the server has them all and has nothing left to do.
            for caller in callers {
                try caller.say("?")
                guard try caller.hear(1) == "?" else {
                    throw SystemError(
                        ETIMEDOUT, attempted: "wait for the answer of the \(kind.rawValue) server")
                }
            }
            let before = server.counters.emptyReceives
            let share = Idle.share(over: idleTime) { $0 < 0.01 }
            let asked = server.counters.emptyReceives - before
            let line =
                "\(kind.rawValue), \(clients) silent clients: \(percent(share)) of a processor, "
                + "\(asked) receives that found nothing"
            return (happened: share >= 0.01 || asked > 0, line: line)
        }
        return Observation(happened: results.contains { $0.happened }, lines: results.map(\.line))
    }

    private static func percent(_ share: Double) -> String {
        let tenths = Int((share * 1_000).rounded())
        return "\(tenths / 10).\(tenths % 10) %"
    }
}
