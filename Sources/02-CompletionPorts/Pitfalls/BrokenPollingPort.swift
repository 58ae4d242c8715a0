import Kernel

/// ⚠︎ Broken on purpose: workers wait in the driver. The one that is alone there asks again and again for a while before
/// it sleeps, and forgets that a wake-up which it takes meanwhile was meant for it.
final class BrokenPollingPort: CompletionTarget, @unchecked Sendable {
    let driver: Driver
    private let pollBeforeSleep: Duration
    private let lock = Lock()
    // Guarded by the lock.
    private var queue: [UInt] = []
    private var inKernel = 0
    /// The driver has been woken, and nobody has come out of it since.
    private var isWaking = false
    private var isClosed = false

    init(_ kind: DriverKind, pollBeforeSleep: Duration) throws(SystemError) {
        driver = try Driver.make(kind, waiters: 2)
        self.pollBeforeSleep = pollBeforeSleep
    }

    /// Puts a packet into the queue.
    func post(key: UInt) {
        lock.locked {
            queue.append(key)
            wakeSomebody()
        }
    }

    /// The way in for operations that complete inside their post.
    override func take(_ completed: inout CompletionList) {
        lock.locked {
            enqueue(&completed)
            wakeSomebody()
        }
    }

    /// The next packet's key; nil when the port is closed.
    func dequeue() -> UInt? {
        lock.locked {
            while queue.isEmpty, !isClosed { askDriver() }
            let key = queue.isEmpty ? nil : queue.removeFirst()
            // What is left is for another one.
            if !queue.isEmpty || isClosed { wakeSomebody() }
            return key
        }
    }

    /// With the lock, before and after: waits in the driver without it.
    private func askDriver() {
        inKernel += 1
        let isAlone = inKernel == 1
        lock.unlock()
        var completed = CompletionList()
        if !isAlone || !poll(&completed) { driver.poll(for: self, until: .never, &completed) }
        lock.lock()
        enqueue(&completed)
        inKernel -= 1
        isWaking = false
    }

    /// Asks for a short time, before going to sleep. True when there is no need to sleep.
    private func poll(_ completed: inout CompletionList) -> Bool {
        let end = Deadline.after(pollBeforeSleep)
        repeat {
            driver.poll(for: self, until: .now, &completed)
            if !completed.isEmpty || lock.locked({ !queue.isEmpty || isClosed }) { return true }
        } while !end.hasPassed
        return false
    }

    /// With the lock: one wake-up is enough until somebody has come.
    private func wakeSomebody() {
        guard inKernel > 0, !isWaking else { return }
        isWaking = true
        driver.wake()
    }

    private func enqueue(_ completed: inout CompletionList) {
        while let reference = completed.popFirst() {
            let operation = reference.takeRetainedValue()
            operation.wasDequeued()
            queue.append(operation.completionKey)
        }
    }

    /// Releases everybody.
    func close() {
        lock.locked {
            isClosed = true
            wakeSomebody()
        }
    }
}
