import CKernel
import Glibc

/// Writes down what happens to operations, from any thread, while a recording runs.
///
/// There is one recorder in a process. While it is not recording, a mark costs one load and a branch, so marks stay
/// in the code for good. While it is, a mark costs a few dozen nanoseconds under a lock, which also gives all
/// records one order. Not for signal handlers.
public enum Recorder {
    /// How many records a recording keeps unless told otherwise.
    public static let defaultCapacity = 65_536
    /// The most records that a recording can be asked to keep.
    public static let maximumCapacity = 1 << 22
    /// Notes, labels and names are cut after this many characters.
    public static let maximumTextLength = 120

    /// Whether marks are written down now.
    @inlinable @inline(__always)
    public static var isRecording: Bool { ck_is_recording() }

    /// Writes down that an operation has reached a moment, here and now.
    /// - Parameter operation: what tells the operation apart while it is alive, such as its address. It may be used
    ///   again afterwards; 0 stands for a packet without an operation.
    @inlinable @inline(__always)
    public static func mark(_ moment: Moment, _ operation: UInt) {
        if isRecording { append(.moment(moment), operation) }
    }

    /// Writes down that an operation was posted, here and now, and of what kind it is: an operation without a label is
    /// called by its kind and a number, such as `receive 1`.
    @inlinable @inline(__always)
    public static func posted(_ operation: UInt, _ kind: @autoclosure () -> String) {
        if isRecording {
            append(.kind(kind()), operation)
            append(.moment(.posted), operation)
        }
    }

    /// Writes down that the post itself has told what has come of the operation: it was refused, or it has succeeded and
    /// brings no packet. The operation's life ends here.
    @inlinable @inline(__always)
    public static func over(_ operation: UInt) {
        if isRecording { append(.over, operation) }
    }

    /// Writes down that a worker keeps what the operation has brought until its turn comes, and why.
    @inlinable @inline(__always)
    public static func held(_ operation: UInt, _ why: @autoclosure () -> String) {
        guard isRecording else { return }
        append(.held, operation)
        note(why(), of: operation)
    }

    /// Writes down that the turn of what was kept has come. Without a ``held(_:_:)`` before it, it says nothing.
    @inlinable @inline(__always)
    public static func turn(_ operation: UInt) {
        if isRecording { append(.turn, operation) }
    }

    /// Writes down a remark. The text is not even made while nothing is recorded.
    @inlinable @inline(__always)
    public static func note(_ text: @autoclosure () -> String, of operation: UInt = 0) {
        if isRecording { append(.note(String(text().prefix(maximumTextLength))), operation) }
    }

    /// Gives an operation the name that the drawings show, such as `recv 1`: from its present life on, or from its
    /// next one if the present one has reached a worker already.
    @inlinable @inline(__always)
    public static func label(_ operation: UInt, _ text: @autoclosure () -> String) {
        if isRecording { append(.label(String(text().prefix(maximumTextLength))), operation) }
    }

    /// Names the calling thread, for this recording and for later ones.
    public static func nameThread(_ name: String) { tape.nameThread(String(name.prefix(maximumTextLength))) }

    /// Starts a recording.
    /// - Parameter capacity: how many records are kept, 1 to ``maximumCapacity``; later ones are counted as dropped.
    /// - Returns: `false`, and nothing has changed, if a recording is running already.
    @discardableResult
    public static func start(capacity: Int = defaultCapacity) -> Bool {
        precondition(
            (1...maximumCapacity).contains(capacity), "a recording keeps 1 to \(maximumCapacity) records")
        return tape.start(capacity: capacity)
    }

    /// Ends the recording and hands it over. Marks on their way at this moment are in it or are ignored.
    public static func stop() -> Recording { tape.stop() }

    @usableFromInline
    static func append(_ what: Recording.What, _ operation: UInt) { tape.append(what, operation) }
}

private let tape = Tape()

/// The recorder's memory. Everything in it is read and written under its mutex: that is why it is `Sendable`.
private final class Tape: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    /// A thread's lane in the running recording: the generation in the upper 40 bits, the lane in the lower 24.
    private let laneKey: pthread_key_t
    /// A thread's name, a C string on the heap that the thread's end frees.
    private let nameKey: pthread_key_t
    private var generation: UInt = 0
    private var isRunning = false
    private var origin = 0
    private var capacity = 0
    private var dropped = 0
    private var records: [Recording.Record] = []
    private var lanes: [Recording.Lane] = []

    init() {
        mutex = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        var key = pthread_key_t()
        guard pthread_key_create(&key, nil) == 0 else { fatalError("no thread-specific key is left") }
        laneKey = key
        guard pthread_key_create(&key, { free($0) }) == 0 else {
            fatalError("no thread-specific key is left")
        }
        nameKey = key
    }

    func start(capacity: Int) -> Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        if isRunning { return false }
        generation += 1
        self.capacity = capacity
        dropped = 0
        lanes = []
        records = []
        records.reserveCapacity(capacity)
        origin = now()
        isRunning = true
        ck_set_recording(true)
        return true
    }

    func stop() -> Recording {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        ck_set_recording(false)
        isRunning = false
        let result = Recording(records: records, lanes: lanes, dropped: dropped)
        records = []
        lanes = []
        dropped = 0
        return result
    }

    func append(_ what: Recording.What, _ operation: UInt) {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        guard isRunning else { return }
        guard records.count < capacity else {
            dropped += 1
            return
        }
        // The time is taken under the lock, so that the order of the records is the order of their times.
        let lane = laneOfThisThread() ?? addLane()
        records.append(.init(nanoseconds: now() - origin, lane: lane, operation: operation, what: what))
    }

    func nameThread(_ name: String) {
        free(pthread_getspecific(nameKey))
        pthread_setspecific(nameKey, strdup(name))
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        if isRunning, let lane = laneOfThisThread() { lanes[lane].name = name }
    }

    private func laneOfThisThread() -> Int? {
        let word = UInt(bitPattern: pthread_getspecific(laneKey))
        return word >> 24 == generation ? Int(word & 0xff_ffff) : nil
    }

    private func addLane() -> Int {
        let thread = Int(ck_gettid())
        let given = pthread_getspecific(nameKey).map {
            String(cString: $0.assumingMemoryBound(to: CChar.self))
        }
        let name = given ?? (thread == Int(getpid()) ? "main" : "thread \(thread)")
        lanes.append(.init(name: name, thread: thread))
        let word = generation << 24 | UInt(lanes.count - 1)
        pthread_setspecific(laneKey, UnsafeRawPointer(bitPattern: word))
        return lanes.count - 1
    }

    private func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }
}
