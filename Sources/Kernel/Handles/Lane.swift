import Glibc

/// One direction of a handle: the operations pending there, in the order they were posted.
///
/// The thread that has set `busy` carries out the operation at the head and is alone with it until it clears `busy`
/// again; others only append. That keeps receives filled, and sends leaving, in posting order, without holding a lock
/// over a system call.
///
/// What a lane can look like whenever its handle's lock is free. Every change is made with that lock:
///
/// | pending | `busy` | `isInterrupted` | |
/// |---|---|---|---|
/// | none | no | no | Nothing is under way. |
/// | some | no | no | The head waits: for a notice, or, a receive over io_uring, for the next thread that polls. |
/// | some | yes | no | The head is carried out: by a thread, or by the ring if its `ring` is set. |
/// | any | no | yes | The walk was interrupted, and the lane is on its driver's list. |
/// | some | yes | yes | The same over io_uring, where a receive that was put off has been started meanwhile. |
///
/// - `busy` is set by a post, by a thread that polls the driver, by a cancel or a close that looks once more, and with
///   the handle's change of driver; it is cleared by the thread that walks, which over io_uring is the one that takes
///   the answer, when the lane is empty, when its head has to wait, and when the walk is interrupted.
/// - `ready` is set by a notice, by an attempt that got all it asked for, by every failure, by a cancel, a close or an
///   interruption, and for sends from the start. An attempt uses it up: the thread that sets `busy` clears it.
/// - `isInterrupted` is set by the thread that walks, when it stops. The thread that takes the lane off the driver's
///   list clears it; so do a cancel, a close and a change of driver, which start the head themselves.
///
/// A file's lanes are different: all of its operations are carried out at once, wherever they stand. Only writes over
/// epoll have `busy`, and come one after the other.
struct Lane {
    var pending = OperationQueue()
    /// The head is being carried out: by a thread, or by the ring.
    var busy = false
    /// The descriptor may be usable: an attempt is worth while. Set by notices, used up by attempts.
    var ready = false
    /// The other side has ended or failed, or has sent an urgent byte: there may be something to be had until an attempt
    /// finds nothing.
    var ended = false
    /// A walk along this lane was interrupted, so that other connections have their turn, and is about to go on.
    var isInterrupted = false
}

/// Pending operations in posting order, linked through themselves. Each is owned by the queue.
struct OperationQueue {
    private(set) var head: Unmanaged<Overlapped>?
    private var tail: Unmanaged<Overlapped>?

    mutating func append(_ operation: Unmanaged<Overlapped>) {
        operation._withUnsafeGuaranteedRef {
            $0.next = nil
            $0.previous = tail
        }
        if let tail { tail._withUnsafeGuaranteedRef { $0.next = operation } } else { head = operation }
        tail = operation
    }

    @inline(__always)
    mutating func remove(_ operation: Unmanaged<Overlapped>) {
        operation._withUnsafeGuaranteedRef { op in
            if head?.toOpaque() == operation.toOpaque() {
                // Mostly it is the head. Its neighbour is not told: what stands before the head is never asked for, and the
                // neighbour has long left the processor's cache.
                head = op.next
                if head == nil { tail = nil }
            } else {
                op.previous?._withUnsafeGuaranteedRef { $0.next = op.next }
                if let next = op.next {
                    next._withUnsafeGuaranteedRef { $0.previous = op.previous }
                } else {
                    tail = op.previous
                }
            }
            op.next = nil
            op.previous = nil
        }
    }
}

/// What the system knows of a handle. Every field is guarded by `mutex`.
///
/// The memory of a state is recycled but never given back, so a late notice for a handle that is gone can still
/// look at it. It finds another handle's state there, or none, and the worst that it does is to make a thread
/// try in vain: a notice only ever says *try*.
///
/// The order of the fields is that of memory: with its lanes a state is two lines of the processor's cache.
///
/// What a socket can be, and what makes it the next thing:
///
/// | descriptor | `bound` | `listening` | `connected` | | next |
/// |---|---|---|---|---|---|
/// | none | no | no | no | fresh | an accept claims it |
/// | none | yes | no | no | claimed | the accept fills it: connected; or comes to nothing: fresh |
/// | one | no | no | no | unbound | it is bound, or the plain `connected(to:)` connects it |
/// | one | yes | no | no | bound | a connect that succeeds: connected |
/// | one | yes | yes | no | listener | nothing else |
/// | one | yes | no | yes | connected | a disconnect for reuse that has ended: fresh |
///
/// `sendShutDown`, `isBecomingFresh` and `reset` belong to a connection, and are forgotten with it. From each of these
/// `close` leads to `closed`, for good. Its descriptor is closed at once, or, as long as `closing` says so, by the thread
/// that leaves the last busy lane or gives the borrowed descriptor back.
struct HandleState {
    var mutex = pthread_mutex_t()
    var descriptor: Int32 = -1
    /// Calls under way that use the descriptor without having a lane.
    var borrowers: Int16 = 0
    /// No operation may be posted any more.
    var closed = false
    /// The descriptor is to be closed by the thread that leaves the last busy lane.
    var closing = false
    var bound = false
    var listening = false
    var connected = false
    var sendShutDown = false
    /// The connection was reset: known from an operation that failed so.
    var reset = false
    /// A disconnect for reuse is pending: when it is over, nothing may be left.
    var isBecomingFresh = false
    /// Registered with the driver for readiness.
    var registered = false
    var kind = HandleKind.socket
    var driver: Driver?
    var target: CompletionTarget?
    /// The key of every packet. In a state that no handle has: the address of the next free one.
    var key: UInt = 0
}

/// Listeners are apart from other sockets, since a connection is locked before its listener, and a state that was
/// one today and the other tomorrow would be locked in both orders.
enum HandleKind: UInt8 { case socket, listener, file }

/// The direction of an operation: which of a handle's two lanes it waits in.
enum Direction: Int {
    case inward = 0
    case outward = 1
}

typealias StatePointer = UnsafeMutablePointer<HandleState>
typealias LanePointer = UnsafeMutablePointer<Lane>

extension UnsafeMutablePointer where Pointee == HandleState {
    // Valid for ever: states are never given back.
    @inline(__always) func lock() { pthread_mutex_lock(&pointee.mutex) }
    @inline(__always) func unlock() { pthread_mutex_unlock(&pointee.mutex) }
    /// In debug builds: stops the program when this thread does not hold the lock.
    @inline(__always) func assertHeld() { assert(pointee.mutex.__data.__owner == Thread.currentID) }
    // Right behind the state, see `HandleStates`.
    @inline(__always) func lane(_ direction: Direction) -> LanePointer {
        (UnsafeMutableRawPointer(self) + HandleStates.lanes).assumingMemoryBound(to: Lane.self)
            + direction.rawValue
    }
}

/// The store of handle states: made in slabs, recycled, never given back.
enum HandleStates {
    private static let lock = Lock()
    // One list for each kind of handle.
    nonisolated(unsafe) private static var free: (StatePointer?, StatePointer?, StatePointer?)
    private static let perSlab = 32
    /// Bytes of a state with its two lanes, in whole lines of the processor's cache: two of them, and three on arm64, where a
    /// mutex is larger.
    @inline(__always) private static var size: Int {
        (lanes + 2 * MemoryLayout<Lane>.stride + 63) & ~63
    }
    /// Where the lanes begin. Known to the compiler: nothing is computed for a packet.
    @inline(__always) static var lanes: Int { MemoryLayout<HandleState>.stride }

    private static func withFree<Result>(_ kind: HandleKind, _ body: (inout StatePointer?) -> Result)
        -> Result
    {
        lock.lock()
        defer { lock.unlock() }
        switch kind {
        case .socket: return body(&free.0)
        case .listener: return body(&free.1)
        case .file: return body(&free.2)
        }
    }

    static func take(_ kind: HandleKind) -> StatePointer {
        withFree(kind) { free in
            if free == nil { addSlab(to: &free) }
            let state = free!
            free = StatePointer(bitPattern: state.pointee.key)
            state.pointee.key = 0
            return state
        }
    }

    static func giveBack(_ state: StatePointer) {
        withFree(state.pointee.kind) { free in
            state.pointee.key = UInt(bitPattern: free)
            free = state
        }
    }

    private static func addSlab(to free: inout StatePointer?) {
        let slab = UnsafeMutableRawPointer.allocate(byteCount: size * perSlab, alignment: 64)
        for index in 0..<perSlab {
            let place = slab + size * index
            let state = place.bindMemory(to: HandleState.self, capacity: 1)
            state.initialize(to: HandleState())
            (place + lanes).bindMemory(to: Lane.self, capacity: 2).initialize(repeating: Lane(), count: 2)
            pthread_mutex_init(&state.pointee.mutex, nil)
            state.pointee.key = UInt(bitPattern: free)
            free = state
        }
    }
}
