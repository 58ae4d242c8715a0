import CompletionPorts
import Contexts
import Glibc
import Kernel
import Reordering
import Synchronization

/// Runs tasks on the workers of a completion port: a job of a task is a posted packet.
///
/// So tasks, handlers and completions share one set of threads and one limit, and a task that blocks is noticed as a handler
/// is (I2.6). A task gets here by its preference: `withTaskExecutorPreference(executor) { … }`, or
/// `Task(executorPreference: executor) { … }`. Child tasks inherit it; a plain `Task { … }` does not.
///
/// It promises threads, not exclusion: two tasks run at once on two workers. What is to be exclusive is an actor without
/// an executor of its own. Any thread may call any method. Win32 counterpart: none; `PostQueuedCompletionStatus` with a pointer
/// to what is to be run is what programs write there.
public final class PortExecutor: PacketOwner, TaskExecutor, @unchecked Sendable {
    /// The port, its workers, and the connections that share them.
    public let hub: StreamHub
    private let stopsHub: Bool
    private let posted = Atomic<Int>(0)
    private let stray = Atomic<Int>(0)
    /// Threads that are inside `enqueue`.
    private let callers = Atomic<Int>(0)
    private let monitor = Monitor()
    // Guarded by the monitor.
    /// What tasks await, with the handles: the end has to end it. (I13.8)
    private var awaited: [ObjectIdentifier: (operation: AwaitedOperation, handle: Handle)] = [:]
    private var isStopping = false

    /// Runs tasks on the workers of a hub that somebody else stops. Its executor's tasks have to be over by then.
    public init(on hub: StreamHub) {
        precondition(MemoryLayout<UnownedJob>.size == MemoryLayout<Int>.size, "a job is a pointer")
        self.hub = hub
        stopsHub = false
    }

    /// Starts workers of its own. `stop` ends them.
    ///
    /// - Throws: EINVAL for impossible options, EMFILE, EAGAIN.
    public init(_ options: StreamHub.Options = StreamHub.Options()) throws(SystemError) {
        hub = try StreamHub(options)
        stopsHub = true
    }

    // MARK: Jobs

    /// Called by the Swift runtime when a task can go on. Each job is run exactly once: from here on the packet owns it. (I13.1)
    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if Seat.current.take(job, for: hub) { return }
        // Behind the post the job may be over already, elsewhere, and its task was the last that kept this executor.
        callers.add(1, ordering: .relaxed)
        posted.add(1, ordering: .relaxed)
        do throws(SystemError) {
            // The pointer travels as the number of bytes: nothing is allocated.
            try hub.port.post(bytes: unsafeBitCast(job, to: Int.self), key: key)
        } catch {
            // The port is closed. A job that is dropped would be a task that hangs for ever.
            stray.add(1, ordering: .relaxed)
            globalConcurrentExecutor.enqueue(ExecutorJob(job))
        }
        callers.subtract(1, ordering: .releasing)
    }

    deinit {
        // Who is about to leave `enqueue` still has a last look at this object.
        while callers.load(ordering: .acquiring) > 0 { sched_yield() }
    }

    /// A worker has brought a packet: a job, or an operation that a task awaits.
    public override func handle(_ packet: Packet, _ error: SystemError?) {
        guard packet.isPosted else {
            return unsafeDowncast(packet.operation!, to: AwaitedOperation.self).completed(self)
        }
        run(unsafeBitCast(packet.bytes, to: UnownedJob.self), on: Seat.current)
    }

    private func run(_ job: UnownedJob, on seat: Seat) {
        seat.beginsJob(of: hub)
        job.runSynchronously(on: asUnownedTaskExecutor())
        seat.endsJob()
    }

    /// Resumes a task out of a completion, on the worker that has brought it: its job is run right here, behind the call that
    /// made it ready, and no packet and no wake-up is needed for it. (I13.2)
    ///
    /// One job for each completion. What that job makes ready is posted: it would otherwise wait behind a job that blocks.
    func resume(_ continuation: UnsafeContinuation<Void, Never>) {
        let seat = Seat.current
        guard seat.offers(hub) else { return continuation.resume() }
        continuation.resume()
        if let job = seat.leftJob() { run(job, on: seat) }
    }

    /// Runs a task on the workers, and waits for its end: the way in for a thread that is none of them, such as a program's
    /// first one. Not to be called by a task.
    public func run<Result: Sendable>(_ body: @escaping @Sendable () async -> Result) -> Result {
        let box = Guarded<Result?>(nil)
        let monitor = MonitorBox()
        Task(executorPreference: self) {
            let result = await body()
            box.locked { $0 = result }
            monitor.open()
        }
        monitor.wait()
        return box.locked { $0! }
    }

    // MARK: Handles

    /// Sends the completions of a handle to this executor's port, once for each handle. An awaited operation does it by itself
    /// when it has not been done.
    ///
    /// - Throws: EINVAL when the handle belongs to another port, EBADF when it is closed.
    public func take(_ handle: Handle) throws(SystemError) {
        if handle.completionKey == key { return }
        try hub.port.associate(handle, key: key)
    }

    /// An operation is about to be posted. - Throws: EBADF after `stop`.
    func begins(_ operation: AwaitedOperation, on handle: Handle) throws(SystemError) {
        try take(handle)
        try monitor.locked { () throws(SystemError) in
            if isStopping {
                throw SystemError.closed("await an operation on an executor that has been stopped")
            }
            awaited[ObjectIdentifier(operation)] = (operation, handle)
        }
    }

    /// Its packet has come, or it was not posted after all.
    func ended(_ operation: AwaitedOperation) {
        monitor.locked {
            awaited[ObjectIdentifier(operation)] = nil
            if awaited.isEmpty { monitor.broadcast() }
        }
    }

    // MARK: The end

    /// Refuses further operations, and asks for all that tasks await to be cancelled: each task goes on with what had come, or
    /// with an error. A task that has made up its mind not to hear of its cancellation hears of this. (I13.8)
    public func endOperations() {
        let pending = monitor.locked {
            isStopping = true
            return Array(awaited.values)
        }
        for (operation, handle) in pending { handle.cancel(operation) }
    }

    /// Ends every awaited operation and, if it made them, connections and workers. Its tasks should be over by now: whatever
    /// one of them still has to do is done by Swift's own threads, and counted. Not to be called by a task.
    ///
    /// - Returns: Whether nothing is left. False when an operation's packet has not come within 10 seconds, such as a read
    ///   of a device that does not answer; or as `StreamHub.stop`.
    @discardableResult
    public func stop() -> Bool {
        endOperations()
        let deadline = Deadline.after(.seconds(10))
        let isIdle = monitor.locked {
            while !awaited.isEmpty {
                if !monitor.wait(until: deadline) { return awaited.isEmpty }
            }
            return true
        }
        guard stopsHub else { return isIdle }
        return hub.stop() && isIdle
    }

    /// What an executor has done so far.
    public struct Counters: Sendable, Equatable {
        /// Jobs that were given to the port as packets. The others were run where a completion had made them ready.
        public var postedJobs = 0
        /// Jobs that came when the port was closed, and were run by Swift's own threads.
        public var strayJobs = 0
        /// Operations that tasks await now.
        public var awaited = 0
    }

    /// What it has done so far.
    public var counters: Counters {
        Counters(
            postedJobs: posted.load(ordering: .relaxed), strayJobs: stray.load(ordering: .relaxed),
            awaited: monitor.locked { awaited.count })
    }
}

/// A thread waits here for a task.
private final class MonitorBox: Sendable {
    private let monitor = Monitor()
    private let isOpen = Atomic<Bool>(false)

    func open() {
        monitor.locked {
            isOpen.store(true, ordering: .releasing)
            monitor.broadcast()
        }
    }

    func wait() {
        monitor.locked {
            while !isOpen.load(ordering: .acquiring) { monitor.wait() }
        }
    }
}
