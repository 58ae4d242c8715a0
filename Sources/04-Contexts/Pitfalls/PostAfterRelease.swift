import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a new connection's count is what is pending on it, and nothing is at first.
final class BrokenSetUp: Pooled, @unchecked Sendable {
    var link = PoolLink()
    private let lock = Lock()
    private var pending = 0  // under the lock

    func enter() { lock.locked { pending += 1 } }

    func leave() -> Bool {
        lock.locked {
            pending -= 1
            return pending == 0
        }
    }
}

/// The client hangs up during set-up: the first read releases the context, and set-up posts the next read on it.
public enum PostAfterRelease {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "post-after-release",
        title: "the client hangs up during set-up, and the next read is posted on a released context",
        broken: { driver in
            let list = FreeList<BrokenSetUp>(maximumFree: 4) { BrokenSetUp() }
            let next = Guarded<BrokenSetUp?>(nil)
            return try scenario(driver) { post, meanwhile in
                let context = list.take()!
                for step in [meanwhile, {}] {
                    context.enter()
                    try post(context)
                    step()
                }
                return next.locked { $0 === context } ? 1 : 0
            } packet: { context in
                guard let context = context as? BrokenSetUp, context.leave() else { return }
                list.giveBack(context)
                // The next client is quick.
                next.locked { if $0 == nil { $0 = list.take() } }
            }
        },
        fixed: { driver in
            let list = FreeList<CountedContext>(maximumFree: 4) { CountedContext() }
            let next = Guarded<CountedContext?>(nil)
            return try scenario(driver) { post, meanwhile in
                // It begins with the set-up's share.
                let context = list.take()!
                for step in [meanwhile, {}] where context.enter() {
                    try post(context)
                    step()
                }
                let isStolen = next.locked { $0 === context }
                if context.leave() { list.giveBack(context) }
                return isStolen ? 1 : 0
            } packet: { context in
                guard let context = context as? CountedContext, context.leave() else { return }
                list.giveBack(context)
                next.locked { if $0 == nil { $0 = list.take() } }
            }
        })

    /// A read with the context that it is for.
    private final class Read: Overlapped, @unchecked Sendable {
        let context: AnyObject
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 1)
        init(_ context: AnyObject) { self.context = context }
        deinit { memory.deallocate() }
    }

    /// The client is gone before the first read is posted. `meanwhile` returns when that read has been handled.
    private static func scenario(
        _ driver: DriverKind,
        setUp: (_ post: (AnyObject) throws -> Void, _ meanwhile: @escaping () -> Void) throws -> Int,
        packet: @escaping @Sendable (AnyObject) -> Void
    ) throws -> Observation {
        let pair = try Pair()
        pair.client.close()
        let port = try CompletionPort.on(driver)
        try port.associate(pair.server, key: 1)
        let handled = Gate()
        let workers = try WorkerGroup(1, on: port) { found, _ in
            if let read = found.operation as? Read { packet(read.context) }
            handled.open()
        }
        defer { workers.stop() }
        let posted = Counter()
        let stolen = try setUp { context in
            let read = Read(context)
            try pair.server.receive(read, into: read.memory)
            posted.add()
        } _: {
            handled.pass()
        }
        return Observation(
            happened: stolen > 0 || posted.value != 2,
            lines: [
                "the client had gone; the first read was handled before the second was posted",
                stolen > 0
                    ? "the second read was posted on a context that the next client had got meanwhile"
                    : "\(posted.value) reads were posted, and the context was the set-up's own all the time",
            ])
    }
}
