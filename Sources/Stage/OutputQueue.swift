import Glibc
import Kernel

/// Lines on their way to a screen that may not take them: they wait in a queue, and one thread writes them.
///
/// What a server has to say comes from its workers, and a worker never waits for a screen: a pipe that is full, or a
/// terminal after Ctrl-S, would stop every client that the worker serves. So nothing that is put in ever waits. When there
/// is no room, lines are dropped and counted, and where they are missing the reader finds how many there were.
final class OutputQueue: @unchecked Sendable {
    /// Bytes that may wait.
    static let limit = 64 << 10

    private let write: @Sendable (String) -> Void
    private let monitor = Monitor()
    // Under the monitor:
    private var texts = CircularQueue<String>()
    private var waiting = 0
    private var dropped = 0
    private var isWriting = false
    private var hasThread = false

    /// A queue in front of `write`, which may block.
    init(write: @escaping @Sendable (String) -> Void) { self.write = write }

    /// Puts a text of one line or several in, and never waits.
    func put(_ text: String) {
        monitor.locked {
            // Once lines are missing, half of the queue has to be free again: one gap, and not one line after another.
            let room = dropped == 0 ? OutputQueue.limit : OutputQueue.limit / 2
            guard waiting + text.utf8.count <= room else {
                dropped += text.count { $0 == "\n" }
                return
            }
            if dropped > 0 { append(takeNotice()) }
            append(text)
            if !hasThread {
                hasThread = true
                // Without a thread there is no room either, and the lines are counted as missing.
                do { _ = try Thread("output") { [self] in run() } } catch { hasThread = false }
            }
            monitor.broadcast()
        }
    }

    /// Waits until everything is written, or the time is over.
    /// - Returns: how many lines have not been written.
    func flush(within patience: Duration) -> Int {
        let deadline = Deadline.after(patience)
        return monitor.locked {
            while hasThread && (isWriting || !texts.isEmpty || dropped > 0) {
                if !monitor.wait(until: deadline) { break }
            }
            var missing = dropped
            while let text = texts.popFirst() { missing += text.count { $0 == "\n" } }
            return missing + (isWriting ? 1 : 0)
        }
    }

    private func append(_ text: String) {
        texts.append(text)
        waiting += text.utf8.count
    }

    private func takeNotice() -> String {
        defer { dropped = 0 }
        return "… \(counted(dropped, "line")) not shown\n"
    }

    /// The thread: it lives as long as the program, since the reader may come back at any time.
    private func run() {
        while true {
            let text = monitor.locked {
                while texts.isEmpty && dropped == 0 {
                    isWriting = false
                    monitor.broadcast()
                    _ = monitor.wait()
                }
                isWriting = true
                guard let text = texts.popFirst() else { return takeNotice() }
                waiting -= text.utf8.count
                return text
            }
            write(text)
        }
    }
}
