import CompletionPorts
import Glibc
import Kernel

/// Threads that nobody starts: they come with the work, run callbacks, and go when there is nothing to do.
///
/// The pool is a completion port with threads of its own. There is none before the first task. From then on one thread
/// more than are busy waits at the port, the *spare*, as long as there are fewer than `maximum`: when the port lets it
/// have a packet, the next spare is made. The port knows its limit and sees who is blocked (I2.6, I2.8), so the pool
/// grows just when callbacks block and work waits. (I10.2) A thread that has had nothing to do for `idleTime` ends, down
/// to `minimum`. Every method may be called from any thread.
///
/// Win32 counterpart: `CreateThreadpool`, and the process's own pool.
public final class ThreadPool: @unchecked Sendable {
    /// The limits.
    public let options: Options
    // Where everything comes together: submitted callbacks, due timers, signalled events, completions. (I10.1)
    let port: CompletionPort
    /// Guards the accounts of the pool and of all its objects, and everything below.
    let monitor = Monitor()
    var count = Counters()
    /// Callbacks announced and not yet over, of all objects: while there are any, the pool does not end. (I10.5)
    var outstanding = 0
    var timers = TimerQueue()
    /// Until when each waiting thread sleeps, by its number. One of them knows of the timer that is due next. (I10.4)
    private var sleeps: [Int: Deadline] = [:]
    var isClosed = false
    private var threads: [Int: Kernel.Thread] = [:]
    /// Threads that have ended, and have not been joined.
    private var ended: [Int] = []
    private var lastNumber = 0
    /// Handles bound the old way, which have no object that could keep their callback.
    private var bindings: [Binding] = []

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
        /// Callbacks that were dropped before they began, since whoever waited for them had cancelled them.
        public internal(set) var cancelled = 0
        /// Completions of operations that were never announced; nobody was called.
        public internal(set) var strays = 0
        /// Threads that the system would not give.
        public internal(set) var refusedThreads = 0
    }

    /// A pool for the whole process, with the defaults. It stays.
    /// Win32 counterpart: a callback environment without a pool of its own.
    public static let shared: ThreadPool = {
        do { return try ThreadPool() } catch { fatalError("no thread pool: \(error)") }
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

    /// Sends every completion of a handle to a callback, the old way: nothing is announced and nothing is counted, so
    /// nobody can wait for the callbacks. For those who keep their own accounts, like chapter 03's pool of accepts.
    ///
    /// - Throws: EINVAL when the handle belongs to a port already, EBADF when it or the pool is closed.
    ///
    /// Win32 counterpart: `BindIoCompletionCallback`.
    public func bind(
        _ handle: Handle, _ callback: @escaping @Sendable (Packet, SystemError?) -> Void
    ) throws(SystemError) {
        let binding = Binding(callback)
        try associate(handle, key: UInt(bitPattern: Unmanaged.passUnretained(binding).toOpaque()))
        monitor.locked { bindings.append(binding) }
    }

    private final class Binding: Sendable {
        let callback: @Sendable (Packet, SystemError?) -> Void
        init(_ callback: @escaping @Sendable (Packet, SystemError?) -> Void) { self.callback = callback }
    }

    func associate(_ handle: Handle, key: UInt) throws(SystemError) {
        try ensureThread()
        try port.associate(handle, key: key)
    }

    // MARK: Threads

    /// There is a thread that will see what comes.
    func ensureThread() throws(SystemError) {
        let isNeeded: Bool = try monitor.locked { () throws(SystemError) in
            if isClosed { throw SystemError.closed("use a closed thread pool") }
            return reserveThread(unless: count.threads > 0)
        }
        if isNeeded { try startThread() }
    }

    /// Under the monitor: whether one more thread is to be started. It counts from here on.
    func reserveThread(unless enough: Bool) -> Bool {
        guard !enough, count.threads < options.maximum else { return false }
        count.threads += 1
        count.waiting += 1
        count.peak = max(count.peak, count.threads)
        return true
    }

    /// Starts a thread that has been reserved.
    func startThread() throws(SystemError) {
        let number = monitor.locked {
            lastNumber += 1
            return lastNumber
        }
        joinEnded()
        do throws(SystemError) {
            // The thread's number is in the table before the thread can end.
            try monitor.locked { () throws(SystemError) in
                threads[number] = try Kernel.Thread("pool thread \(number)") { self.work(number) }
            }
        } catch {
            let isAlone = monitor.locked {
                count.threads -= 1
                count.waiting -= 1
                count.refusedThreads += 1
                return count.threads == 0
            }
            // Others are there: it is slower then, and that is all.
            if isAlone { throw error }
        }
    }

    private func joinEnded() {
        let handles = monitor.locked {
            defer { ended = [] }
            return ended.compactMap { threads.removeValue(forKey: $0) }
        }
        for thread in handles { thread.join() }
    }

    /// A thread's life: waits for packets, at most until the nearest timer is due or it has idled for too long.
    private func work(_ number: Int) {
        let instance = CallbackInstance(self, number)
        CallbackInstance.current = instance
        var idleEnd = Deadline.after(options.idleTime)
        while true {
            let deadline = monitor.locked {
                let deadline = min(timers.next, idleEnd)
                sleeps[number] = deadline
                return deadline
            }
            switch port.dequeue(until: deadline) {
            case .completed(let packet), .failed(let packet, _):
                if handle(packet, instance) { idleEnd = .after(options.idleTime) }
            case .timedOut: break
            case .closed: return end(number)
            }
            callTimers()
            if idleEnd.hasPassed, retire(number) { return }
        }
    }

    /// The thread has idled for long. False when it is needed all the same.
    private func retire(_ number: Int) -> Bool {
        let isOver = monitor.locked {
            // Handles and timers want somebody to be there.
            let wanted = max(options.minimum, outstanding > 0 || !timers.isEmpty || !bindings.isEmpty ? 1 : 0)
            return count.threads > wanted && !isClosed
        }
        if isOver { end(number) }
        return isOver
    }

    private func end(_ number: Int) {
        monitor.locked {
            count.threads -= 1
            count.waiting -= 1
            sleeps[number] = nil
            ended.append(number)
            monitor.broadcast()
        }
    }

    // MARK: Packets

    /// False when it was only a wake-up.
    private func handle(_ packet: Packet, _ instance: CallbackInstance) -> Bool {
        if packet.isPosted {
            guard let object = packet.operation else { return false }
            // Only the pool posts, and only its objects.
            call(unsafeDowncast(object, to: PoolObject.self), packet, .current(packet.bytes), instance)
        } else if let operation = packet.operation as? PoolOperation, let (io, epoch) = operation.release() {
            call(io, packet, .current(epoch), instance)
        } else if packet.key != 0 {
            // Valid: bindings stay as long as the pool.
            let pointer = UnsafeRawPointer(bitPattern: packet.key)!
            let binding = Unmanaged<Binding>.fromOpaque(pointer).takeUnretainedValue()
            busy(instance) { binding.callback(packet, packet.error) }
        } else {
            monitor.locked { count.strays += 1 }
        }
        return true
    }

    private func call(
        _ object: PoolObject, _ packet: Packet, _ epoch: PoolObject.Epoch, _ instance: CallbackInstance
    ) {
        guard monitor.locked({ object.begin(epoch) }) else { return }
        instance.object = object
        busy(instance) { object.called(packet, instance) }
        instance.object = nil
        instance.setEvents()
        monitor.locked { object.end() }
        closePortIfDone()
    }

    /// Runs a callback. For that time the thread does not wait: another one does, and knows of the next timer.
    private func busy(_ instance: CallbackInstance, _ callback: () -> Void) {
        let (needsSpare, needsWatch) = monitor.locked {
            count.waiting -= 1
            count.running += 1
            sleeps[instance.number] = nil
            return (reserveThread(unless: count.waiting > 0), isEarlier(timers.next))
        }
        if needsSpare { try? startThread() }
        if needsWatch { wake() }
        callback()
        monitor.locked {
            count.waiting += 1
            count.running -= 1
            count.callbacks += 1
        }
    }

    // MARK: Timers

    /// Under the monitor: whether threads wait, all of them for longer than until this deadline. One has to be woken.
    func isEarlier(_ deadline: Deadline) -> Bool {
        !deadline.isNever && !sleeps.isEmpty && sleeps.values.allSatisfy { $0 > deadline }
    }

    /// Wakes a thread, so that it looks at the timers.
    func wake() { try? port.post() }

    /// Announces the callbacks of all timers that are due, and posts them: so the limit holds for them as well.
    private func callTimers() {
        let due = monitor.locked { timers.isEmpty ? [] : timers.takeDue() }
        for call in due { post(call) }
    }

    /// Posts a call that has been announced.
    func post(_ call: PoolObject.Call) {
        do throws(SystemError) {
            try port.post(bytes: call.epoch.number, key: call.key, operation: call.object)
        } catch {
            // The port closes when nothing is outstanding.
            preconditionFailure("a pool's port was closed under a call")
        }
    }

    // MARK: The end

    /// Takes nothing new: timers and waits end, and what has been announced is still called. When the last callback is
    /// over the threads end. Returns at once. To be called when the handles of its `PoolIO` are closed: their pending
    /// operations are announced callbacks.
    ///
    /// Win32 counterpart: `CloseThreadpool`.
    public func close() {
        let objects = monitor.locked {
            isClosed = true
            return timers.removeAll()
        }
        for object in objects { object.disarm() }
        closePortIfDone()
    }

    /// Closes the pool, and waits until every callback has returned and every thread has ended.
    ///
    /// - Throws: EDEADLK from a callback of the pool, which would wait for itself.
    public func closeAndWait() throws(SystemError) {
        if CallbackInstance.current?.pool === self {
            throw SystemError(EDEADLK, attempted: "wait for a thread pool from one of its callbacks")
        }
        close()
        monitor.locked { while count.threads > 0 { monitor.wait() } }
        joinEnded()
    }

    /// When nothing is outstanding any more.
    func closePortIfDone() {
        if monitor.locked({ isClosed && outstanding == 0 }) { port.close() }
    }
}

extension CompletionPort {
    fileprivate func dequeue(until deadline: Deadline) -> Dequeued {
        dequeue(timeout: deadline.isNever ? nil : .nanoseconds(Int64(clamping: deadline.remaining)))
    }
}
