import AsyncEvents
import Contexts
import Kernel
import Reordering

/// Closes connections whose stream was in error, when their clients have had time to hear of it. Those who then neither
/// close nor send would stay for ever. (I6.4)
///
/// A thread looks now and then: a connection is closed `patience` after its error at the earliest, and twice that at
/// the latest. It knows them by their names only, since most of them are over by then.
public final class FailureSweep: Sendable {
    private let failed = Guarded<[ConnectionID]>([])
    private let end = Event(.manual)
    private let thread: Kernel.Thread

    /// Starts to sweep. To be stopped before the hub is.
    ///
    /// - Throws: EINVAL for no patience at all, EAGAIN when the system allows no more threads.
    public init(_ hub: StreamHub, patience: Duration) throws(SystemError) {
        guard patience > .zero else { throw SystemError.invalid("sweep without a pause") }
        let (failed, end) = (failed, end)
        thread = try Kernel.Thread("failure sweep") {
            var earlier: [ConnectionID] = []
            while end.wait(until: .after(patience)) == .timedOut {
                for id in earlier { hub.find(id)?.close() }
                earlier = failed.locked { names in
                    defer { names = [] }
                    return names
                }
            }
        }
    }

    func add(_ id: ConnectionID) { failed.locked { $0.append(id) } }

    /// Ends the thread and waits for it.
    public func stop() {
        end.set()
        thread.join()
    }
}
