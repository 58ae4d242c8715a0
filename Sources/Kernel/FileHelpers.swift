import CKernel
import Glibc

/// A few threads for what would block: the disk. They start when there is work and end with their driver.
final class FileHelpers: @unchecked Sendable {
    /// Operations on files that run at once. More would not make a disk faster.
    static let limit = 4

    private let monitor = Monitor()
    // Guarded by the monitor.
    private var waiting = CircularQueue<(Unmanaged<Overlapped>, Unmanaged<Driver>)>()
    private var threads: [Thread] = []
    private var idle = 0
    private var ending = false

    /// Runs the operation soon. Its lane owns it until it is complete.
    func run(_ operation: Overlapped, _ driver: Driver) {
        monitor.locked {
            waiting.append((Unmanaged.passUnretained(operation), Unmanaged.passUnretained(driver)))
            if idle > 0 {
                monitor.signal()
            } else if threads.count < FileHelpers.limit {
                // With one helper running, a failure to start another only makes the queue longer.
                if let thread = try? Thread("file helper", { self.work() }) { threads.append(thread) }
            }
        }
    }

    private func work() {
        // Sendfile knows no MSG_NOSIGNAL: a closed peer must be an error here, not a signal.
        var pipe = sigset_t()
        sigemptyset(&pipe)
        sigaddset(&pipe, SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &pipe, nil)
        while let (operation, driver) = next() {
            var completed = CompletionList()
            operation._withUnsafeGuaranteedRef { operation in
                driver._withUnsafeGuaranteedRef { driver in
                    guard let state = operation.handle?.state else { return }
                    if state.pointee.kind == .file {
                        driver.driveFile(operation, state, &completed)
                    } else {
                        let descriptor = state.locked { $0.pointee.descriptor }
                        driver.drive(
                            operation, state, state.lane(.outward), descriptor, onHelper: true, &completed)
                    }
                }
            }
            completed.deliver()
        }
    }

    private func next() -> (Unmanaged<Overlapped>, Unmanaged<Driver>)? {
        monitor.locked {
            idle += 1
            defer { idle -= 1 }
            while waiting.isEmpty && !ending { monitor.wait() }
            return waiting.popFirst()
        }
    }

    /// Ends the threads and waits for them. Called when nothing can be pending any more.
    func end() {
        let ended = monitor.locked {
            ending = true
            monitor.broadcast()
            defer { threads = [] }
            return threads
        }
        for thread in ended { thread.join() }
    }
}

extension UnsafeMutablePointer where Pointee == HandleState {
    @inline(__always)
    func locked<Result>(_ body: (StatePointer) -> Result) -> Result {
        lock()
        defer { unlock() }
        return body(self)
    }
}
