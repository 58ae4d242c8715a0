/// What is explored: how many workers and which limit, and how often what may happen.
public struct WaitingSetting: Sendable {
    /// Where workers wait in the kernel.
    public enum Interface: String, CaseIterable, Sendable {
        /// `epoll_wait`, which tells each change to one thread.
        case epoll
        /// A ring of several waiters: `epoll_wait` for the ring's descriptor, and then the answers.
        case ring = "io_uring"
    }

    /// Workers; at most 3.
    public var workers: Int
    /// The port's concurrency.
    public var limit: Int8
    /// The driver.
    public var interface: Interface
    /// Whether a worker that is alone in the driver polls before it sleeps.
    public var polls = false
    /// Whether there is a sampler.
    public var noticesBlocking = true
    /// Packets in a row without a look into the driver; 61 in the port.
    public var turnsBeforeKernel: Int8 = 2
    /// What is wrong with the scheme; nil if nothing is.
    public var fault: WaitingFault?

    /// Packets posted by a thread that is no worker, and by handlers.
    public var posts: Int8 = 0, handlerPosts: Int8 = 0
    /// Requests that complete in the kernel, inside a handler's own call, and on a thread that is no worker.
    public var completions: Int8 = 0, ownCompletions: Int8 = 0, foreignCompletions: Int8 = 0
    /// Waits with a time-out, which may be over at any moment.
    public var timeouts: Int8 = 0
    /// Handlers that block, that say so with `blocking { }`, and threads that end.
    public var blocks: Int8 = 0, saysSo: Int8 = 0, ends: Int8 = 0
    /// Whether the port may be closed, at any moment.
    public var closes = true

    /// Nothing but workers that ask.
    public init(_ workers: Int, limit: Int8, _ interface: Interface) {
        self.workers = workers
        self.limit = limit
        self.interface = interface
    }
}

/// Ways to get the scheme wrong. Each is one line of `Dequeue.swift` that is missing or different.
public enum WaitingFault: String, CaseIterable, Sendable {
    /// `pollBeforeSleep` does not look at `isWaking`.
    case pollEatsTheWakeUp
    /// `releaseSomebody` sends nobody into the driver.
    case givesNoPlace
    /// `askKernel` does not reset `isWaking`.
    case staysWaking
    /// `lookIntoDriver` does not wake the driver again.
    case looksAndKeepsTheWakeUp
    /// `depart` gives the lock back, and releases nobody.
    case departsInSilence
    /// `leave` gives the lock back, and releases nobody.
    case leavesInSilence
    /// `wait` lets one more into the driver than the limit has room for.
    case oneTooManyInTheDriver
    /// `wait` lets a worker into the driver while another is being woken there.
    case joinsThePromised
    /// Promised packets do not count when it is asked whether another worker may run.
    case forgetsPromises
    /// `close` releases those who are parked, and wakes nobody in the driver.
    case closesInSilence
}
