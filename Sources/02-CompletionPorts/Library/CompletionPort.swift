import Kernel
import Synchronization
import Timeline

/// A queue of completions, and the threads that wait for them.
///
/// Handles are associated with a port; when an operation on one of them completes, a packet comes into the queue,
/// and a worker dequeues it. Packets leave in the order they came. Waiting workers are released last in, first out,
/// and no more of them run at a time than the concurrency value says.
/// (Over io_uring the kernel finishes a request in the thread that posted it. If that one waits in the driver, its packet
/// may come to it, or to the newest of the others there. I2.5)
///
/// Every method may be called from any thread. Win32 counterpart: an I/O completion port.
public final class CompletionPort: CompletionTarget, @unchecked Sendable {
    /// How many workers run at a time, at most, as far as they do not block.
    public let concurrency: Int
    /// What can be chosen when a port is made.
    public let options: Options
    let driver: Driver

    /// The choices that a port has beside its concurrency.
    public struct Options: Sendable {
        /// Which of the system's interfaces carries operations out; nil takes `DriverKind.standard`.
        public var driver: DriverKind?
        /// How long a worker that finds nothing asks again before it goes to sleep. Makes a single busy connection
        /// faster; with short connections it costs processor time. An idle port sleeps in any case.
        public var pollBeforeSleep = Duration.zero
        /// When io_uring hands requests to the kernel.
        public var submission = Submission.atOnce
        /// Whether the port notices by itself that a running worker is blocked.
        public var noticesBlocking = true

        /// The defaults.
        public init() {}
    }

    // MARK: What the lock guards

    package let lock = Lock()
    // I2.2: in the order in which they came.
    var queue = CircularQueue<Packet>(capacity: 256)
    /// Workers that count against the limit.
    var running = 0
    /// Workers that wait in the driver. They go there only while running and these together are under the limit, so
    /// that a worker that leaves the driver with a packet need not wake a successor for it. I2.6
    var inKernel = 0
    /// Packets set aside for workers that have been woken in the driver and are not out yet. I2.5
    var promised = CircularQueue<Packet>(capacity: 4)
    /// Workers beyond that.
    var parked = WorkerStack()
    var tied: [Worker] = []
    var hasHandles = false
    var isClosed = false
    /// The driver has been woken, and no worker has come out of it since.
    var isWaking = false
    /// The last wait's.
    var lastTicket = 0
    /// Counts the times that a worker took packets.
    var turns = 0
    var turnsWithoutKernel = 0
    var dropped = 0
    var sampler: Sampler?
    let number: Int
    let reference = PortReference()

    /// When the first of those turns began; 0 before.
    var turnsBegan: UInt64 = 0

    /// Packets taken in a row before the driver is asked again: however busy the queue, operations go on.
    static let turnsBeforeKernel = 61
    /// And nanoseconds, since turns are not time: handlers may be long.
    static let timeBeforeKernel: UInt64 = 5_000_000

    private static let count = Atomic<Int>(0)

    /// Makes a port.
    ///
    /// - Parameter concurrency: How many workers may run at a time; 0 means as many as there are processors.
    /// - Throws: EINVAL for a negative number; EMFILE when no descriptor is left.
    ///
    /// Win32 counterpart: `CreateIoCompletionPort` without a handle.
    public init(concurrency: Int = 0, options: Options = Options()) throws(SystemError) {
        guard concurrency >= 0 else {
            throw SystemError.invalid("make a port with a concurrency of \(concurrency)")
        }
        self.concurrency = concurrency == 0 ? Kernel.Thread.processors : concurrency
        self.options = options
        driver = try Driver.make(options.driver, waiters: self.concurrency, submission: options.submission)
        number = CompletionPort.count.add(1, ordering: .relaxed).newValue
        super.init()
        reference.set(self)
    }

    deinit {
        reference.clear()
        sampler?.end()
        while let packet = queue.popFirst() { settle(packet) }
    }

    /// The interface that the port's operations are carried out with.
    public var driverKind: DriverKind { driver.kind }

    // MARK: What goes in

    /// Sends the completions of a handle here, each with `key`. Once only: a handle belongs to one port, under one
    /// key, for good. An operation that is already pending reports here too. The port never looks into the key.
    /// I2.4
    ///
    /// - Throws: EINVAL when the handle is associated already, EBADF when it or the port is closed.
    ///
    /// Win32 counterpart: `CreateIoCompletionPort` with a handle.
    public func associate(_ handle: Handle, key: UInt) throws(SystemError) {
        let isOpen = lock.locked {
            hasHandles = true
            return !isClosed
        }
        guard isOpen else { throw SystemError.closed("associate with a closed port") }
        try handle.associate(with: self, key: key, driver: driver)
    }

    /// Puts a packet into the queue, exactly as it is given. Nothing in it is looked at.
    ///
    /// - Throws: EBADF when the port is closed.
    ///
    /// Win32 counterpart: `PostQueuedCompletionStatus`.
    public func post(bytes: Int = 0, key: UInt = 0, operation: Overlapped? = nil) throws(SystemError) {
        lock.lock()
        lookIntoDriver()
        guard !isClosed else {
            lock.unlock()
            throw SystemError.closed("post to a closed port")
        }
        Recorder.mark(.queued, operation?.identity ?? 0)
        queue.append(Packet(posted: operation, bytes: bytes, key: key))
        unlockAndRelease()
    }

    /// The way in for completed operations. To be called by the kernel only.
    public override func take(_ completed: inout CompletionList) {
        lock.lock()
        enqueue(&completed)
        if inKernel > 0, comesFromWorker { return lock.unlock() }
        unlockAndRelease()
    }

    /// For the kernel as well: see `reassociate`.
    public override func holdsPackets(withKey key: UInt) -> Bool { lock.locked { hasPackets(withKey: key) } }

    /// Under the lock: whether the packets were brought by a worker of this port itself, which will be here in a
    /// moment to take one. If it comes out of its handler and does not, the sampler sees to the packets.
    private var comesFromWorker: Bool {
        let worker = Worker.current
        guard worker.tie == number else { return false }
        return worker.state == .inKernel || worker.state == .running && sampler?.isWatching == true
    }

    /// Under the lock. Every completion comes this way, once: I2.1
    func enqueue(_ completed: inout CompletionList) {
        while let reference = completed.popFirst() {
            // The reference that the kernel held is now the packet's.
            if !isClosed {
                queue.append(Packet(completed: reference.takeRetainedValue()))
            } else {
                dropped += 1
                // Without the lock: what goes with its context may have operations that report here.
                lock.unlock()
                reference.takeRetainedValue().wasDequeued()
                lock.lock()
            }
        }
    }

    // MARK: The end

    /// Closes the port. Every waiting worker, and every one that asks later, gets what is still queued, and then
    /// `closed`; the limit does not hold them back any more. Handles stay open and alone: what completes on them
    /// from now on is dropped and counted. I2.9
    ///
    /// - Parameter draining: With false, what is queued is not handed to workers but returned here.
    /// - Returns: The packets that no worker will see. Nothing is lost silently.
    ///
    /// Win32 counterpart: `CloseHandle` on the port.
    @discardableResult
    public func close(draining: Bool = true) -> [Packet] {
        var left: [Packet] = []
        lock.lock()
        if !isClosed, inKernel == 0 { driver.retire() }
        isClosed = true
        if !draining {
            while let packet = queue.popFirst() {
                settle(packet)
                left.append(packet)
            }
        }
        while let worker = parked.pop() {
            worker.release = .end
            worker.wakeUp.signal()
        }
        sampler?.end()
        sampler = nil
        // One of those that wait in the driver. Each that leaves wakes the next, and the last retires the driver.
        unlockAndRelease()
        return left
    }

    /// Packets that came after the port was closed, and were dropped.
    public var droppedPackets: Int { lock.locked { dropped } }

    /// Packets in the queue.
    public var queuedPackets: Int { lock.locked { queue.count } }

    /// Workers that count against the limit now, and workers that wait.
    public var workers: (running: Int, waiting: Int) {
        lock.locked {
            var (waiting, worker) = (inKernel, parked.top)
            while let next = worker { (waiting, worker) = (waiting + 1, next.below) }
            return (running, waiting)
        }
    }

    /// Those of the waiting that wait in the driver, and not behind it.
    public var workersInDriver: Int { lock.locked { inKernel } }

    /// A packet leaves the queue: its operation is its receiver's again.
    @inline(__always)
    func settle(_ packet: Packet) {
        if !packet.isPosted { packet.operation?.wasDequeued() }
    }
}

/// A port, for what may outlive it: its threads and its sampler. `weak` would do the same, and make every
/// counting of references to the port slow from then on.
final class PortReference: @unchecked Sendable {
    private let lock = Lock()
    // Valid while it is not nil: the port clears it under the lock, before its memory goes.
    private unowned(unsafe) var port: CompletionPort?
    /// The thread that is inside `use`.
    private let user = Atomic<Int32>(0)

    func set(_ port: CompletionPort) { self.port = port }

    func clear() {
        // The last reference to the port may be the one that `use` has: then this thread holds the lock already.
        if user.load(ordering: .relaxed) == Kernel.Thread.currentID {
            port = nil
        } else {
            lock.locked { port = nil }
        }
    }

    /// Runs `body` with the port, which stays until it returns; nil when it is gone.
    func use<Result>(_ body: (CompletionPort) -> Result) -> Result? {
        lock.lock()
        user.store(Kernel.Thread.currentID, ordering: .relaxed)
        let result = run(body)
        user.store(0, ordering: .relaxed)
        lock.unlock()
        return result
    }

    // A function of its own, so that the reference is given back before the lock is.
    @inline(never)
    private func run<Result>(_ body: (CompletionPort) -> Result) -> Result? { port.map(body) }
}
