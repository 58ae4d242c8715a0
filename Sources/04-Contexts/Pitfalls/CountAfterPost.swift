import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: counts an operation when it has been posted. Its packet may be handled before that.
final class BrokenCount: @unchecked Sendable {
    private let lock = Lock()
    private var pending = 0  // under the lock
    private(set) var lowest = 0
    let released = Counter()

    func post(_ start: () throws -> Void, meanwhile: () -> Void) rethrows {
        try start()
        meanwhile()
        lock.locked { pending += 1 }
    }

    func packetHandled() {
        let isOver = lock.locked {
            pending -= 1
            lowest = min(lowest, pending)
            return pending <= 0
        }
        if isOver { released.add() }
    }
}

/// The pending count is raised after the post: the completion lowers it first.
public enum CountAfterPost {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "count-after-post",
        title: "an operation is counted after its post, and its completion has counted down before that",
        broken: { driver in
            let count = BrokenCount()
            try race(driver) { start, meanwhile in
                try count.post(start, meanwhile: {})
                try count.post(start, meanwhile: meanwhile)
            } packet: {
                count.packetHandled()
            }
            return Observation(
                happened: count.released.value > 0 && count.lowest < 0,
                lines: [
                    "two receives were posted; both packets were handled before the second was counted",
                    "the count fell to \(count.lowest), and the context was released, while a post was under way",
                ])
        },
        fixed: { driver in
            let context = CountedContext()
            let released = Counter()
            try race(driver) { start, meanwhile in
                for step in [{}, meanwhile] {
                    guard context.enter() else { continue }
                    try start()
                    step()
                }
            } packet: {
                if context.leave() { released.add() }
            }
            let early = released.value
            if context.leave() { released.add() }
            return Observation(
                happened: early != 0 || released.value != 1 || context.shares.lowest < 0,
                lines: [
                    "each receive was counted before its post; both packets were handled before the posts went on",
                    "released while the set-up had a share: \(early); at its end: \(released.value), "
                        + "at a count of \(context.shares.lowest)",
                ])
        })

    /// Posts two receives for which the bytes are there. `meanwhile` returns when both packets have been handled.
    private static func race(
        _ driver: DriverKind,
        post: (_ start: () throws -> Void, _ meanwhile: @escaping () -> Void) throws -> Void,
        packet: @escaping @Sendable () -> Void
    ) throws {
        let pair = try Pair()
        let port = try CompletionPort.on(driver)
        try port.associate(pair.server, key: 1)
        try pair.client.say("abcdef")
        let handled = Gate(count: 2)
        let workers = try WorkerGroup(1, on: port) { _, _ in
            packet()
            handled.open()
        }
        defer { workers.stop() }
        let start = {
            let request = Request()
            try pair.server.receive(request, into: .init(rebasing: request.memory[..<3]))
        }
        try post(start) { handled.pass() }
    }
}
