import CKernel
import Glibc

/// A few threads for what would block: the disk. They start when there is work and end with their driver.
///
/// They refer to this object and not to the driver, which a pending operation keeps alive through its handle. So the
/// last reference to a driver may well go on one of them, when it has delivered what it completed; that is why the
/// end does not wait for them.
final class FileHelpers: @unchecked Sendable {
    /// Operations on files that run at once. More would not make a disk faster.
    static let limit = 4

    private let monitor = Monitor()
    // Guarded by the monitor.
    private var waiting = CircularQueue<(Unmanaged<Overlapped>, Unmanaged<Driver>)>()
    private var threads = 0
    private var idle = 0
    private var ending = false

    /// Runs the operation soon. Its lane owns it until it is complete.
    func run(_ operation: Overlapped, _ driver: Driver) {
        let hasThread = monitor.locked {
            waiting.append((Unmanaged.passUnretained(operation), Unmanaged.passUnretained(driver)))
            if idle >= waiting.count {
                monitor.signal()
            } else if threads < FileHelpers.limit,
                (try? Thread("file helper", { while self.carryOutNext(waits: true) {} })) != nil
            {
                threads += 1
            }
            return threads > 0
        }
        // With one helper running, a failure to start another only makes the queue longer. Without any, whoever
        // posts has to wait for the disk.
        if !hasThread { while carryOutNext(waits: false) {} }
    }

    private func carryOutNext(waits: Bool) -> Bool {
        guard let (operation, driver) = next(waits) else { return false }
        var completed = CompletionList()
        operation._withUnsafeGuaranteedRef { operation in
            driver._withUnsafeGuaranteedRef { driver in
                #if DEBUG
                    Between.pass(.queueAndHelper, operation)
                #endif
                guard let state = operation.handle?.state else { return }
                if state.pointee.kind == .file {
                    driver.driveFile(operation, state, &completed)
                } else {
                    let (descriptor, isCancelled) = state.locked {
                        ($0.pointee.descriptor, operation.cancelRequested)
                    }
                    driver.drive(
                        operation, state, state.lane(.outward), descriptor,
                        outcome: isCancelled ? .failed(ECANCELED) : nil, onHelper: true, &completed)
                }
            }
        }
        completed.deliver()
        return true
    }

    private func next(_ waits: Bool) -> (Unmanaged<Overlapped>, Unmanaged<Driver>)? {
        monitor.locked {
            idle += 1
            defer { idle -= 1 }
            while waits && waiting.isEmpty && !ending { monitor.wait() }
            return waiting.popFirst()
        }
    }

    /// Ends the threads, soon. Called when nothing can be pending any more.
    func end() {
        monitor.locked {
            ending = true
            monitor.broadcast()
        }
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
