import CompletionPorts
import Glibc
import Kernel

/// Threads that no program starts: they come with the work, run callbacks, and go when there is nothing to do.
///
/// The pool is a completion port with threads of its own. There is none before the first task. From then on one thread
/// more than are busy waits at the port, the *spare*, as long as there are fewer than `maximum`: when the port lets it
/// have a packet, the next spare is made. The port knows its limit and sees who is blocked (I2.6, I2.8), so the pool
/// grows just when callbacks block and work waits. (I10.2) A thread that has had nothing to do for `idleTime` ends, down
/// to `minimum`. Every method may be called from any thread. A pool that is not closed stays, with its threads.
///
/// Win32 counterpart: `CreateThreadpool`, and the process's own pool.
public final class ThreadPool: @unchecked Sendable {
    /// The limits.
    public let options: Options
    // Where everything comes together: submitted callbacks, due timers, signalled events, completions. (I10.1)
    let port: CompletionPort

    // MARK: What the monitor guards, with the accounts of all objects

    let monitor = Monitor()
    var count = Counters()
    /// Callbacks announced and not yet over, of all objects: while there are any, the pool does not end. (I10.6)
    var outstanding = 0
    /// Everything that is due some time, and every wait that is set.
    var timers = TimerQueue()
    /// One for each thread that has begun.
    var instances: [CallbackInstance] = []
    /// An empty packet is on its way: the thread that takes it looks at the timers.
    var isWaking = false
    var isClosed = false
    /// Handles bound the old way, which have no object that could keep their callback.
    private var bindings: [Binding] = []

    // MARK: What the lock of the handles guards

    // Held while a thread is started, so that its handle is here before it can end. Taken after the monitor, if at all.
    let handleLock = Lock()
    var handles: [Int: Kernel.Thread] = [:]
    /// Threads that have ended, and have not been joined.
    var ended: [Int] = []
    var lastNumber = 0
    /// Nobody waits for the end of the process's own pool: its threads are detached when they end, and not joined. Set before
    /// anybody has the pool.
    private(set) var isShared = false

    /// The choices.
    public struct Options: Sendable {
        /// Threads that stay when there is nothing to do; 0 to `maximum`. Win32: `SetThreadpoolThreadMinimum`.
        public var minimum = 1
        /// The most threads. Win32: `SetThreadpoolThreadMaximum`.
        public var maximum = 16
        /// How long a thread has nothing to do before it ends.
        public var idleTime = Duration.seconds(10)
        /// How many callbacks run at a time, as far as they do not block; 0 means as many as there are processors.
        public var concurrency = 0
        /// The port's own choices.
        public var port = CompletionPort.Options()

        /// The defaults.
        public init() {}
    }

    /// What is there now, and what has happened so far.
    public struct Counters: Sendable, Equatable {
        /// Threads now.
        public internal(set) var threads = 0
        /// The most threads at a time.
        public internal(set) var peak = 0
        /// Threads that wait for something to do.
        public internal(set) var waiting = 0
        /// Callbacks that are running.
        public internal(set) var running = 0
        /// Callbacks that have returned.
        public internal(set) var callbacks = 0
        /// Callbacks that were dropped before they began: their caller has cancelled them.
        public internal(set) var cancelled = 0
        /// Completions of operations that were never announced; no callback was called for them.
        public internal(set) var strays = 0
        /// Threads that the system would not give.
        public internal(set) var refusedThreads = 0
    }

    /// A pool for the whole process, with the defaults. It stays.
    /// Win32 counterpart: a callback environment without a pool of its own.
    public static let shared: ThreadPool = {
        do {
            let pool = try ThreadPool()
            pool.isShared = true
            return pool
        } catch {
            fatalError("no thread pool: \(error)")
        }
    }()

    /// A pool without a thread.
    ///
    /// - Throws: EINVAL for limits that contradict each other, EMFILE when no descriptor is left for the port.
    public init(_ options: Options = Options()) throws(SystemError) {
        guard options.minimum >= 0, options.maximum > 0, options.minimum <= options.maximum,
            options.idleTime > .zero
        else { throw SystemError.invalid("make a pool of \(options.minimum) to \(options.maximum) threads") }
        self.options = options
        port = try CompletionPort(concurrency: options.concurrency, options: options.port)
    }

    /// What is there now, and what has happened so far.
    public var counters: Counters { monitor.locked { count } }

    /// The interface that carries operations out.
    public var driverKind: DriverKind { port.driverKind }

    /// Has a callback called, once.
    ///
    /// - Throws: EBADF when the pool is closed, EAGAIN when it has no thread and the system gives none.
    ///
    /// Win32 counterpart: `TrySubmitThreadpoolCallback`.
    public func submit(_ callback: @escaping @Sendable (CallbackInstance) -> Void) throws(SystemError) {
        try PoolWork(self, callback).submit()
    }

    // MARK: The old way

    /// Sends every completion of a handle to a callback, the old way: nothing is announced and nothing is counted, so
    /// there is no waiting for these callbacks. For those who keep their own accounts, like chapter 03's pool of accepts.
    /// The callback stays as long as the pool.
    ///
    /// - Throws: EINVAL when the handle belongs to a port already, EBADF when it or the pool is closed, EAGAIN without a
    ///   thread.
    ///
    /// Win32 counterpart: `BindIoCompletionCallback`.
    public func bind(
        _ handle: Handle, _ callback: @escaping @Sendable (Packet, SystemError?) -> Void
    ) throws(SystemError) {
        let binding = Binding(callback)
        // From here on there is always a thread: what is bound may complete at any time.
        try withThread("bind a handle to a closed thread pool") { bindings.append(binding) }
        do throws(SystemError) {
            try port.associate(handle, key: UInt(bitPattern: Unmanaged.passUnretained(binding).toOpaque()))
        } catch {
            monitor.locked { bindings.removeAll { $0 === binding } }
            throw error
        }
    }

    final class Binding: Sendable {
        let callback: @Sendable (Packet, SystemError?) -> Void
        init(_ callback: @escaping @Sendable (Packet, SystemError?) -> Void) { self.callback = callback }
    }

    /// Under the monitor: how many threads stay when there is nothing to do. Whatever may still happen by itself wants
    /// one to be there.
    var wantedThreads: Int {
        max(options.minimum, outstanding > 0 || !timers.isEmpty || !bindings.isEmpty ? 1 : 0)
    }

    // MARK: The end

    /// Takes nothing new. Timers and waits end; what has been announced is still called. When the last callback is over
    /// the threads end. Returns at once. To be called when the handles of its `PoolIO` are closed: their pending
    /// operations are announced callbacks.
    ///
    /// Win32 counterpart: `CloseThreadpool`.
    public func close() {
        let calls = monitor.locked {
            isClosed = true
            // A wait whose event has just been faster still brings its callback.
            return timers.removeAll().compactMap { $0.disarm() }
        }
        for call in calls { post(call) }
        closePortIfDone()
    }

    /// Closes the pool, and waits until every callback has returned and every thread has ended.
    ///
    /// - Throws: EDEADLK from a callback of the pool, which would wait for itself.
    public func closeAndWait() throws(SystemError) {
        try requireOutside("wait for a thread pool")
        close()
        monitor.locked { while count.threads > 0 { monitor.wait() } }
        joinEnded()
    }

    /// - Throws: EDEADLK on a thread of this pool.
    package func requireOutside(_ attempted: String) throws(SystemError) {
        if CallbackInstance.current?.pool === self {
            throw SystemError(EDEADLK, attempted: "\(attempted) from one of its callbacks")
        }
    }

    /// When nothing is outstanding any more.
    func closePortIfDone() {
        if monitor.locked({ isOver }) { port.close() }
    }

    /// Under the monitor.
    var isOver: Bool { isClosed && outstanding == 0 }
}
