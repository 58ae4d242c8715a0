import AsyncAwait
import CompletionPorts
import Glibc
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: takes a port that lets one worker run for a lock.
final class BrokenActorExecutor: PacketOwner, SerialExecutor, @unchecked Sendable {
    private let port: CompletionPort

    init(_ port: CompletionPort) { self.port = port }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        try? port.post(bytes: unsafeBitCast(job, to: Int.self), key: key)
    }

    override func handle(_ packet: Packet, _ error: SystemError?) {
        unsafeBitCast(packet.bytes, to: UnownedJob.self).runSynchronously(on: asUnownedSerialExecutor())
    }
}

/// A ledger into which one task is to write at a time. The first blocks with the book open.
private protocol Ledger: Actor {
    nonisolated var inside: Counter { get }
}

extension Ledger {
    fileprivate func first(_ port: CompletionPort, _ isOpen: Gate, _ mayGoOn: Gate) {
        inside.add()
        // The port is told that this worker may block, and lets another one run, as it should.
        port.blocking {
            isOpen.open()
            mayGoOn.pass()
        }
        inside.add(-1)
    }

    fileprivate func second(_ isInside: Gate) {
        inside.add()
        isInside.open()
        inside.add(-1)
    }
}

/// ⚠︎ Broken on purpose: its executor is a port of concurrency 1.
private actor BrokenLedger: Ledger {
    nonisolated let inside = Counter()
    private let executor: BrokenActorExecutor
    nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    init(_ port: CompletionPort) { executor = BrokenActorExecutor(port) }
}

/// An actor as Swift makes them.
private actor PlainLedger: Ledger {
    nonisolated let inside = Counter()
}

/// A limit of one worker is taken for mutual exclusion.
public enum LimitIsNoLock {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "limit-is-no-lock",
        title: "an actor's executor is a port of concurrency 1: its method blocks, and another one gets in",
        broken: { driver in
            try play(driver, within: Gate.patience) { BrokenLedger($0) }
        },
        fixed: { driver in
            try play(driver, within: .milliseconds(100)) { _ in PlainLedger() }
        })

    private static func play(
        _ driver: DriverKind, within patience: Duration, _ make: (CompletionPort) -> any Ledger
    ) throws -> Observation {
        let executor = try makeExecutor(driver, workers: 2, concurrency: 1)
        let port = executor.hub.port
        let (isOpen, mayGoOn, isComing, isInside) = (Gate(), Gate(), Gate(), Gate())
        let ledger = make(port)
        let first = executor.start { await ledger.first(port, isOpen, mayGoOn) }
        isOpen.pass()
        let second = executor.start {
            isComing.open()
            await ledger.second(isInside)
        }
        isComing.pass()
        let met = isInside.pass(within: patience)
        mayGoOn.open()
        guard first.over.pass(), second.over.pass() else {
            throw SystemError(ETIMEDOUT, attempted: "run two methods of an actor")
        }
        executor.stop()
        return Observation(
            happened: met && ledger.inside.peak == 2,
            lines: [
                "the first method blocks inside the actor; the port lets its second worker run",
                "the second method \(met ? "ran meanwhile" : "waited for the first one to return")",
                "most methods inside at once: \(ledger.inside.peak)",
            ])
    }
}
