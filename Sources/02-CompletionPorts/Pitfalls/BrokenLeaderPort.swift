import Kernel

/// ⚠︎ Broken on purpose: one worker, the leader, waits in the driver; the others wait in the port.
///
/// - The leader that gets a packet goes away with it, and nobody takes its place.
/// - The driver is asked when the queue is empty, and only then.
final class BrokenLeaderPort: CompletionTarget, @unchecked Sendable {
    let driver: Driver
    private let lock = Lock()
    private let changed = Condition()
    // Guarded by the lock.
    private var queue: [UInt] = []
    private var hasLeader = false
    private var waiters = 0
    private var isClosed = false

    init(_ kind: DriverKind) throws(SystemError) { driver = try Driver.make(kind) }

    /// Workers that wait, the leader with them.
    var waiting: Int { lock.locked { waiters } }

    /// Puts a packet into the queue.
    func post(key: UInt) {
        let wakes = lock.locked {
            queue.append(key)
            changed.signal()
            return hasLeader
        }
        if wakes { driver.wake() }
    }

    /// The way in for operations that complete inside their post.
    override func take(_ completed: inout CompletionList) {
        lock.locked {
            queue += BrokenLeaderPort.keys(of: &completed)
            changed.signal()
        }
    }

    private static func keys(of completed: inout CompletionList) -> [UInt] {
        var keys: [UInt] = []
        while let reference = completed.popFirst() {
            let operation = reference.takeRetainedValue()
            operation.wasDequeued()
            keys.append(operation.completionKey)
        }
        return keys
    }

    /// The next packet's key; nil when the port is closed.
    func dequeue() -> UInt? {
        lock.locked {
            waiters += 1
            defer { waiters -= 1 }
            while true {
                if !queue.isEmpty { return queue.removeFirst() }
                if isClosed { return nil }
                if hasLeader { changed.wait(lock, until: .never) } else { lead() }
            }
        }
    }

    /// With the lock, before and after: waits in the driver without it.
    private func lead() {
        hasLeader = true
        lock.unlock()
        var completed = CompletionList()
        driver.poll(for: self, until: .never, &completed)
        lock.lock()
        queue += BrokenLeaderPort.keys(of: &completed)
        hasLeader = false
    }

    /// Releases everybody.
    func close() {
        lock.locked {
            isClosed = true
            changed.broadcast()
        }
        driver.wake()
    }
}
