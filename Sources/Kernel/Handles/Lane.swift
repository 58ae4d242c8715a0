import Glibc

/// One direction of a handle: the operations pending there, in the order they were posted.
///
/// Whoever set `busy` carries out the operation at the head and is alone with it until it clears `busy` again;
/// others only append. That keeps receives filled, and sends leaving, in posting order, without holding a lock
/// over a system call.
struct Lane {
    var pending = OperationQueue()
    /// The head is being carried out: by a thread, or by the ring.
    var busy = false
    /// The descriptor may be usable: an attempt is worth while. Set by notices, used up by attempts.
    var ready = false
    /// The other side has ended or failed, or has sent an urgent byte: there may be something to be had until an attempt
    /// finds nothing.
    var ended = false
    /// A walk along this lane was interrupted, for others' sake, and is about to go on.
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
            if let previous = op.previous {
                previous._withUnsafeGuaranteedRef { $0.next = op.next }
            } else {
                head = op.next
            }
            if let next = op.next {
                next._withUnsafeGuaranteedRef { $0.previous = op.previous }
            } else {
                tail = op.previous
            }
            op.next = nil
            op.previous = nil
        }
    }
}

/// What the system knows of a handle. Every field is guarded by `mutex`.
///
/// The memory of a state is recycled but never given back, so a late notice for a handle that is gone can still
/// look at it. It finds another handle's state there, or none, and the worst that it does is to make somebody
/// try in vain: a notice only ever says *try*.
///
/// The order of the fields is that of memory: with its lanes a state is two lines of the processor's cache.
struct HandleState {
    var mutex = pthread_mutex_t()
    var descriptor: Int32 = -1
    /// Calls under way that use the descriptor without having a lane.
    var borrowers: Int16 = 0
    /// No operation may be posted any more.
    var closed = false
    /// The descriptor is to be closed by whoever leaves the last busy lane.
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
    /// While nobody has the state: where the next free one is.
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
