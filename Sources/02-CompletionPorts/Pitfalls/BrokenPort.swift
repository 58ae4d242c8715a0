import Kernel

/// ⚠︎ Broken on purpose: a queue, and workers that wait for it, as one would write it without having seen a
/// completion port. It loses nothing. But
///
/// - the worker that has waited longest is woken, whose stack and caches are the coldest;
/// - there is no limit, or one that counts a worker from packet to packet, whether it runs or sleeps;
/// - whoever takes a batch takes everything.
final class BrokenPort: CompletionTarget, @unchecked Sendable {
    private let limit: Int
    private let lock = Lock()
    // Guarded by the lock.
    private var queue: [UInt] = []
    private var waiters: [Waiter] = []
    private var busy: Set<Int32> = []
    private var isClosed = false

    private final class Waiter {
        let thread = Kernel.Thread.currentID
        let most: Int
        let wakeUp = Condition()
        var taken: [UInt] = []
        init(_ most: Int) { self.most = most }
    }

    init(limit: Int = .max) { self.limit = limit }

    /// Workers that wait.
    var waiting: Int { lock.locked { waiters.count } }

    /// Puts a packet into the queue.
    func post(key: UInt) {
        lock.locked {
            queue.append(key)
            serve()
        }
    }

    /// The way in for completed operations.
    override func take(_ completed: inout CompletionList) {
        while let reference = completed.popFirst() {
            let operation = reference.takeRetainedValue()
            operation.wasDequeued()
            post(key: operation.completionKey)
        }
    }

    /// The next packet's key; nil when the port is closed.
    func dequeue() -> UInt? { dequeue(atMost: 1).first }

    /// The keys of everything that is queued; none when the port is closed.
    func dequeueAll() -> [UInt] { dequeue(atMost: .max) }

    private func dequeue(atMost most: Int) -> [UInt] {
        let waiter = Waiter(most)
        return lock.locked {
            busy.remove(waiter.thread)
            waiters.append(waiter)
            serve()
            while waiter.taken.isEmpty, !isClosed { waiter.wakeUp.wait(lock, until: .never) }
            return waiter.taken
        }
    }

    private func serve() {
        while let oldest = waiters.first, !queue.isEmpty, busy.count < limit {
            waiters.removeFirst()
            busy.insert(oldest.thread)
            oldest.taken = Array(queue.prefix(oldest.most))
            queue.removeFirst(oldest.taken.count)
            oldest.wakeUp.signal()
        }
    }

    /// Releases everybody.
    func close() {
        lock.locked {
            isClosed = true
            for waiter in waiters { waiter.wakeUp.signal() }
            waiters = []
        }
    }
}
