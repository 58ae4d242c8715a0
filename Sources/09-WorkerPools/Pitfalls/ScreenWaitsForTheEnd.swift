import Contexts
import Kernel
import Stage
import WorkerPools

/// ⚠︎ Broken on purpose: hands a line to the thread that owns the screen, and waits until it has been shown. On Windows
/// `SendMessage` does that.
final class BrokenMessages: @unchecked Sendable {
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var line: String?
    private var isShown = false

    /// - Returns: false when the thread of the screen has not shown it in time. The real one waits for ever.
    func say(_ text: String, within patience: Duration) -> Bool {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            line = text
            isShown = false
            monitor.broadcast()
            while !isShown { if !monitor.wait(until: deadline) { return false } }
            return true
        }
    }

    /// The thread of the screen shows what there is, when it comes to it.
    func show() {
        monitor.locked {
            isShown = true
            monitor.broadcast()
        }
    }
}

/// The thread that owns the screen waits for a worker to end, and the worker's last words are for the screen.
public enum ScreenWaitsForTheEnd {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "screen-waits-for-the-end",
        title: "a worker waits for the screen, and the screen for the worker's end",
        broken: { _ in
            let messages = BrokenMessages()
            let leaving = Gate()
            let isShown = Guarded(true)
            let worker = startThread("logical 1") {
                leaving.pass()
                let shown = messages.say("worker 1 ends", within: .milliseconds(300))
                isShown.locked { $0 = shown }
            }
            // The thread of the screen tells the worker to end, and waits for that.
            leaving.open()
            worker.join()
            messages.show()
            return Observation(
                happened: !isShown.locked { $0 },
                lines: [
                    "the main thread waits for the worker's end; the worker waits until the main thread has shown its last words",
                    "after 300 ms this worker gives up, so that this program ends; without that it would not",
                ])
        },
        fixed: { _ in
            let shown = Guarded<[String]>([])
            let messages = try MessageQueue { line in shown.locked { $0.append(line) } }
            var events = WorkerPool.Events()
            events.workerEnded = { messages.say("worker \($0) ends") }
            let pool = try WorkerPool(workers: 4, events: events)
            let hasEnded = boundedWait(.seconds(10)) { _ = try? pool.stop() }
            let left = messages.stop()
            let lines = shown.locked { $0.sorted() }
            return Observation(
                happened: !hasEnded || left != 0 || lines != (1...4).map { "worker \($0) ends\n" },
                lines: [
                    "the pool was stopped, and then the messages: \(lines.count) workers had their last words shown"
                ])
        })
}
