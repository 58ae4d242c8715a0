import Glibc
import Kernel

/// A thread, as the ports know it: which port it asked last, and whether it is running or waiting there.
///
/// A thread is tied to one port at most, the last one it asked, until it asks another or ends.
/// Every field belongs to the lock of that port.
final class Worker: @unchecked Sendable {
    let threadID = Kernel.Thread.currentID
    /// The number of the port that this thread is tied to; 0 for none. Only its own thread changes it.
    var tie = 0
    var port: PortReference?

    /// Every step is made with the port's lock.
    ///
    /// | from | to | by |
    /// |---|---|---|
    /// | running, blocked, away | parked | the thread itself, when it asks, `arrive` |
    /// | parked | inKernel | the thread itself, before it goes there, `askKernel`; or the one that gives it the place |
    /// | inKernel | parked | the thread itself, when it comes out |
    /// | parked | running | the thread itself, when it returns, `leave` and `depart` |
    /// | running | blocked | the sampler, which has seen it blocked twice in one handler |
    /// | blocked | running | the sampler, which has seen it run again |
    /// | running, blocked | away | the thread itself, `blocking` |
    /// | away | running | the thread itself, when that is over, unless it has asked in between |
    ///
    /// `running` of the port counts the workers that are running, and those that were handed a packet and are not out of the
    /// stack yet; `inKernel` counts those that are there.
    enum State {
        /// Handles a packet, or does anything else but wait: counts against the limit.
        case running
        /// Has been seen blocked in its handler: does not count.
        case blocked
        /// Has said that it may block, and not yet that it is over: does not count.
        case away
        /// Waits in the driver.
        case inKernel
        /// Waits in the stack, or has just been released from it.
        case parked
    }
    var state = State.running
    /// When it asked last, in the order of all questions to this port: the largest is the newest waiter. While it
    /// is running with the same ticket it is in the same handler.
    var ticket = 0
    /// The next older one in the stack of parked workers.
    var below: Worker?
    /// Why it was taken off the stack; nil while it is on it.
    var release: Release?
    let wakeUp = Condition()
    /// It may have posted something that has not been handed over (`Submission.afterBatch`). Its own thread's alone.
    var owesHandOver = false
    /// What the sampler saw last.
    var sampledTicket = 0
    var wasSeenBlocked = false

    enum Release {
        /// With a packet. Counted as running already.
        case packet(Packet)
        /// To wait in the driver. Counted there already.
        case place
        /// The port was closed.
        case end
    }

    /// The calling thread's record.
    static var current: Worker {
        if let known = pthread_getspecific(key) {
            return Unmanaged<Worker>.fromOpaque(known).takeUnretainedValue()
        }
        let worker = Worker()
        // The thread owns it, and gives it back at its end, below.
        pthread_setspecific(key, Unmanaged.passRetained(worker).toOpaque())
        return worker
    }

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key) { record in
            guard let record else { return }
            let worker = Unmanaged<Worker>.fromOpaque(record).takeRetainedValue()
            _ = worker.port?.use { $0.untie(worker) }
        }
        return key
    }()
}

/// Parked workers, the newest on top. Each is in one stack at most.
struct WorkerStack {
    private(set) var top: Worker?

    @inline(__always) var isEmpty: Bool { top == nil }

    /// Puts a worker where its ticket belongs: on top, unless it came out of the driver for a newer one. I2.5
    mutating func insert(_ worker: Worker) {
        guard let newest = top, newest.ticket > worker.ticket else {
            worker.below = top
            top = worker
            return
        }
        var above = newest
        while let next = above.below, next.ticket > worker.ticket { above = next }
        worker.below = above.below
        above.below = worker
    }

    mutating func pop() -> Worker? {
        guard let newest = top else { return nil }
        top = newest.below
        newest.below = nil
        return newest
    }

    mutating func remove(_ worker: Worker) {
        if top === worker {
            _ = pop()
            return
        }
        var above = top
        while let candidate = above, candidate.below !== worker { above = candidate.below }
        above?.below = worker.below
        worker.below = nil
    }
}
