import Kernel
import Synchronization
import Timeline

/// Threads that dequeue packets from a port and handle them, one after the other, until the port is closed.
///
/// Win32 counterpart: the worker threads that every server on a completion port starts.
public final class WorkerGroup: Sendable {
    /// The port that the workers serve.
    public let port: CompletionPort
    private let threads: [Kernel.Thread]
    private let failures: Failures

    /// What a worker calls for every packet, with the error of a failed operation. Several workers call it at once.
    /// An error that it throws is counted and reported, and the worker goes on.
    public typealias Handler = @Sendable (Packet, SystemError?) throws -> Void

    /// Starts workers.
    ///
    /// - Parameters:
    ///   - count: At least 1. Windows' rule of thumb is two for each processor or more, so that blocked ones are replaced.
    ///   - batch: The most packets that a worker takes at a time. More than 1 saves time with short handlers; but what
    ///     a worker has taken waits for it, also when it blocks.
    ///   - name: What the threads are called, in front of their numbers.
    ///   - report: Told of every error that a handler threw.
    /// - Throws: EINVAL for no workers at all; EAGAIN when the system allows no more threads.
    public init(
        _ count: Int, on port: CompletionPort, batch: Int = 1, named name: String = "worker",
        report: @escaping @Sendable (any Error) -> Void = { _ in }, handler: @escaping Handler
    ) throws(SystemError) {
        guard count > 0 else { throw SystemError.invalid("start a group of \(count) workers") }
        self.port = port
        let failures = Failures(report)
        self.failures = failures
        var started: [Kernel.Thread] = []
        for number in 1...count {
            do throws(SystemError) {
                started.append(
                    try Kernel.Thread("\(name) \(number)") {
                        Recorder.nameThread("\(name) \(number)")
                        WorkerGroup.work(port, batch, failures, handler)
                    })
            } catch {
                // No worker is left behind, waiting at a port that was never served.
                port.close()
                for thread in started { thread.join() }
                throw error
            }
        }
        threads = started
    }

    private static func work(
        _ port: CompletionPort, _ size: Int, _ failures: Failures, _ handler: Handler
    ) {
        var batch = PacketBatch(capacity: size)
        while port.dequeue(into: &batch) != .closed {
            while let packet = batch.next() { handle(packet, failures, handler) }
        }
    }

    @inline(__always)
    private static func handle(_ packet: Packet, _ failures: Failures, _ handler: Handler) {
        // Asked before: the handler may let the operation go.
        let identity = packet.operation?.identity ?? 0
        do {
            if packet.errorCode == 0 { try handler(packet, nil) } else { try handler(packet, packet.error) }
        } catch {
            // One bad packet does not end a worker.
            failures.count.add(1, ordering: .relaxed)
            failures.report(error)
        }
        Recorder.mark(.handled, identity)
    }

    private final class Failures: Sendable {
        let count = Atomic<Int>(0)
        let report: @Sendable (any Error) -> Void
        init(_ report: @escaping @Sendable (any Error) -> Void) { self.report = report }
    }

    /// Errors that handlers have thrown so far.
    public var failedPackets: Int { failures.count.load(ordering: .relaxed) }

    /// How many workers were started.
    public var count: Int { threads.count }

    /// Closes the port, and returns when every worker has handled what was queued and has ended. A second call
    /// returns at once. Not to be called by a worker, which would wait for itself.
    public func stop() {
        port.close()
        join()
    }

    /// Waits until every worker has ended.
    public func join() {
        for thread in threads { thread.join() }
    }
}
