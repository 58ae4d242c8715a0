import Glibc
import Synchronization
import Timeline

/// One operation: what was asked, and what came of it. The base of every per-I/O context.
///
/// An operation is *idle*, is *posted* on a handle, is *pending* there until it completes, and is idle again when
/// its packet has been dequeued (or, without a port, when it has completed). Posting one that is pending is
/// refused. While it is pending the driver holds a reference to it and to its handle; the memory it reads or
/// writes belongs to the driver for that time, and the caller keeps that memory alive and untouched.
///
/// Results may be read by a thread that dequeued the packet, saw the event, or saw `isPending` turn false.
/// Win32 counterpart: `OVERLAPPED`.
open class Overlapped: @unchecked Sendable {
    /// An idle operation.
    public init() {}

    // MARK: What is asked for

    /// Where a file operation begins, in bytes from the start of the file: one number of 64 bits, not two halves.
    /// Read when the operation is posted, ignored for sockets, never advanced. Win32: `Offset`, `OffsetHigh`, which
    /// have to be 0 for sockets.
    public final var offset: Int64 {
        get { rare?.offset ?? 0 }
        set { extras.offset = newValue }
    }

    /// Set when the operation completes, and reset when it is posted. Win32: `hEvent`.
    public final var event: Signal? {
        get { rare?.event }
        set { extras.event = newValue }
    }

    /// Completes without a packet, even on a handle that has a port; the event still tells.
    /// Win32: the lowest bit of `hEvent`.
    public final var suppressesPacket: Bool {
        get { rare?.suppressesPacket ?? false }
        set { extras.suppressesPacket = newValue }
    }

    /// Where a completion goes instead of the handle's port, such as the APC queue of a thread.
    /// Refused on a handle that has a port. Win32: the completion routine of `ReadFileEx`.
    public final var routineTarget: CompletionTarget?

    // MARK: Results

    /// Bytes transferred. 0 while pending. Win32: `InternalHigh`.
    @inlinable public final var bytes: Int { result }

    /// The system's error number; 0 when the operation succeeded. Win32: `Internal`, which has an NTSTATUS there.
    @inlinable public final var errorCode: Int32 { code }

    /// What went wrong; nil when nothing did.
    public final var error: SystemError? {
        code == 0 ? nil : SystemError(code, attempted: "\(operation)")
    }

    /// Whether the operation has been posted and has not completed. Any thread may ask.
    /// Win32 counterpart: `!HasOverlappedIoCompleted`; on a handle with a port that may say so until the packet is taken.
    public final var isPending: Bool {
        let now = state.load(ordering: .acquiring)
        return now == State.pending || now == State.awaited
    }

    /// What was last posted.
    @inlinable public final var kind: Operation { operation }

    /// The key of the handle at the moment of completion; 0 without a port.
    @inlinable public final var completionKey: UInt { key }

    // MARK: What the driver keeps here. Guarded by the handle's lock while pending.
    // In memory the fields lie in this order: with thousands of connections every line of the cache counts.

    /// Where an operation is in its life. One word, which no lock guards: each step is one atomic operation.
    ///
    /// | from | to | by |
    /// |---|---|---|
    /// | idle | pending | a post, `begin`, with the handle's lock; from any other state the post is refused |
    /// | pending | idle | a post that failed at once, `takeBack`, with the handle's lock |
    /// | pending | awaited | a thread that waits for it, `isToBeAwaited` |
    /// | pending, awaited | queued | its delivery, `conclude`, with no lock, if it has a port or a routine |
    /// | pending, awaited | announcing | the same, if it has only an event; idle, if it has neither |
    /// | announcing | idle | the same thread, when it has set the event |
    /// | queued | idle | the worker or the thread that takes its packet, `wasDequeued`; also when the packet is dropped |
    ///
    /// From its post to its delivery an operation is in one list: in a lane, under the handle's lock; or in a completion
    /// list, which belongs to one thread. Its other fields go with it. The head of a busy lane is the walking thread's
    /// alone, but for `cancelRequested`, which is the wish of others.
    enum State {
        static let idle: UInt8 = 0
        static let pending: UInt8 = 1
        /// Complete, and its packet is in a port: not to be posted before it is dequeued.
        static let queued: UInt8 = 2
        /// Complete, and its event is being set: a post waits until that is done, or the event would tell of the
        /// next life what was true of the last.
        static let announcing: UInt8 = 3
        /// Pending, and a thread sleeps until it is not.
        static let awaited: UInt8 = 4
    }

    final let state = Atomic<UInt8>(State.idle)
    @usableFromInline final var operation = Operation.none
    /// 1 in the second half of an operation, 0 before: an accept that waits for first data, a connect that sends them, a
    /// disconnect that waits for the other side's end. Changed by the thread that walks, when the first half is done.
    final var phase: UInt8 = 0
    /// A cancel or a close wants it to end. Set and read with the handle's lock.
    final var cancelRequested = false
    /// A success inside the post is its poster's, and brings no packet.
    final var skipsPacket = false
    @usableFromInline final var code: Int32 = 0
    @usableFromInline final var result = 0
    @usableFromInline final var key: UInt = 0
    final var buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    /// Bytes already transferred of an operation that takes several steps.
    final var progress = 0
    /// Neighbours in the one list that this operation is in: a lane while pending, a completion list after that.
    @usableFromInline final var next: Unmanaged<Overlapped>?
    final var previous: Unmanaged<Overlapped>?
    /// The handle is kept open for as long as the operation is pending: a reference of its own.
    final var holder: Unmanaged<Handle>?
    final var destination: Unmanaged<CompletionTarget>?
    /// The driver whose ring carries the operation out, while it does. The kernel then keeps the descriptor alive itself.
    final var ring: Driver?
    /// What only some operations carry, made with the first of it: a plain receive or send stays small.
    final var rare: Extras?

    final class Extras {
        var offset: Int64 = 0
        var event: Signal?
        var suppressesPacket = false
        /// Accept: the socket that is to receive the connection. Transmit: the file.
        var other: Handle?
        /// What belongs to one kind of operation alone.
        var plan: AnyObject?

        /// What was given for one post only.
        func forget() {
            other = nil
            plan = nil
        }
    }

    final var extras: Extras {
        if let rare { return rare }
        let made = Extras()
        rare = made
        return made
    }

    /// By this the timeline tells operations apart.
    public final var identity: UInt { UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque()) }

    /// Takes the operation from idle to pending; false when it is not idle.
    @inline(__always)
    final func begin(_ kind: Operation, _ memory: UnsafeMutableRawBufferPointer) -> Bool {
        while true {
            let (isBegun, found) = state.compareExchange(
                expected: State.idle, desired: State.pending, ordering: .acquiringAndReleasing)
            if isBegun { break }
            guard found == State.announcing else { return false }
            sched_yield()
        }
        operation = kind
        phase = 0
        cancelRequested = false
        code = 0
        result = 0
        progress = 0
        buffer = memory
        rare?.event?.reset()
        return true
    }

    /// Back to idle, for what its post tells of.
    final func takeBack() {
        holder.take()?.release()
        rare?.forget()
        leavePending(State.idle)
    }

    /// From pending to another state: wakes the threads that wait for that.
    final func leavePending(_ next: UInt8) {
        let former = state.exchange(next, ordering: .acquiringAndReleasing)
        if former == State.awaited { Completions.shared.announce() }
    }

    /// The handle that it is pending on.
    final var handle: Handle? { holder?.takeUnretainedValue() }

    /// Called by a port when it hands the operation's packet to a worker: from here on it may be posted again.
    public final func wasDequeued() { state.store(State.idle, ordering: .releasing) }
}

/// What an operation does.
public enum Operation: UInt8, Sendable {
    /// Nothing was posted yet.
    case none
    /// Bytes from a connection. Win32: `WSARecv`.
    case receive
    /// Bytes to a connection. Win32: `WSASend`.
    case send
    /// A connection from a listener. Win32: `AcceptEx`.
    case accept
    /// A connection that no accept was pending for. Win32: `WSAEventSelect` with `FD_ACCEPT`.
    case notice
    /// A connection to a listener. Win32: `ConnectEx`.
    case connect
    /// The end of a connection. Win32: `DisconnectEx`.
    case disconnect
    /// Bytes from a file. Win32: `ReadFile`.
    case read
    /// Bytes to a file. Win32: `WriteFile`.
    case write
    /// A file to a connection. Win32: `TransmitFile`.
    case transmit
}

/// Something that can be set when an operation completes: the kernel's side of an event.
open class Signal: @unchecked Sendable {
    /// For subclasses.
    public init() {}
    /// An operation that carries this signal was posted.
    open func reset() {}
    /// An operation that carries this signal completed. Its results are readable. Must not post it again in here.
    open func set() {}
}

extension Overlapped {
    /// Writes the result down, and where it goes. `state` is that of the handle in whose lane the operation was.
    @inline(__always)
    final func finish(_ state: StatePointer, bytes: Int, code: Int32) {
        state.assertHeld()
        result = bytes
        self.code = code == 0 ? 0 : state.note(code)
        if operation == .disconnect { state.pointee.isBecomingFresh = false }
        // An accept that waited for first data belongs to its listener, not to the connection that it waited on.
        let isElsewhere = phase == 1 && operation == .accept && handle?.state != state
        let home = isElsewhere ? handle!.state : state
        if isElsewhere {
            home.lock()
            handle!.awaitingFirstData[ObjectIdentifier(self)] = nil
            (rare?.other as? Socket)?.comeHome()
        }
        key = home.pointee.key
        destination = home.pointee.target.map(Unmanaged.passUnretained)
        if let routineTarget { destination = Unmanaged.passUnretained(routineTarget) }
        if suppressesPacket { destination = nil }
        if isElsewhere { home.unlock() }
    }
}
