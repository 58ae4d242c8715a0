import CompletionPorts
import Kernel
import Stage
import ThreadPoolIO

/// ⚠︎ Broken on purpose: the two halves of an announcement are the caller's, as on Windows, and either can be forgotten.
final class BrokenPoolIO: @unchecked Sendable {
    private let monitor = Monitor()
    private var announced = 0  // under the monitor
    let calls = Counter()
    let ignored = Counter()

    init(_ socket: Socket, _ pool: ThreadPool) throws(SystemError) {
        try pool.bind(socket) { [self] _, _ in completed() }
    }

    /// To be called before each operation is posted.
    func start() { monitor.locked { announced += 1 } }

    /// To be called when a post has failed.
    func cancel() { completed() }

    var pending: Int { monitor.locked { announced } }

    /// Waits until nothing is announced; false when it was not so in time.
    func waitForCallbacks(within patience: Duration) -> Bool {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while announced > 0 {
                if !monitor.wait(until: deadline) { return announced <= 0 }
            }
            return true
        }
    }

    private func completed() {
        let isAnnounced = monitor.locked {
            announced -= 1
            monitor.broadcast()
            return announced >= 0
        }
        if isAnnounced { calls.add() } else { ignored.add() }
    }
}
