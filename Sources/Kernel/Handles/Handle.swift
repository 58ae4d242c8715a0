import CKernel
import Glibc
import Timeline

/// A socket or a file that operations can be posted on.
///
/// A handle is open until `close`, or until nothing refers to it and nothing is pending on it. Every method may be
/// called from any thread; but two threads that post receives on one socket at once get no promise about which
/// comes first. Win32 counterpart: `HANDLE` and `SOCKET`, opened for overlapped work.
open class Handle: @unchecked Sendable {
    let state: StatePointer

    /// The connections on which a listener's accepts wait for first data. Guarded by the state's lock.
    final var awaitingFirstData: [ObjectIdentifier: Handle] = [:]

    init(descriptor: Int32, kind: HandleKind) {
        state = HandleStates.take(kind)
        // Under the lock: a late notice for the handle that had this state before may look at it now.
        locked { state in
            state.pointee.descriptor = descriptor
            state.pointee.kind = kind
            // A send is worth an attempt from the start; a receive is not, until a notice says so.
            state.lane(.outward).pointee.ready = true
        }
    }

    deinit {
        close()
        // Nothing is pending, or this handle would still be referred to. So only a late notice can look here.
        state.lock()
        let target = state.pointee.target
        let driver = state.pointee.driver
        state.lanes { $0.pointee = Lane() }
        state.pointee.clear()
        state.unlock()
        HandleStates.giveBack(state)
        withExtendedLifetime((target, driver)) {}
    }

    /// The system's number for this handle; -1 when it is closed or not yet connected to anything.
    public final var descriptor: Int32 { locked { $0.pointee.descriptor } }

    /// Whether it has been closed, for good. (A socket that was disconnected for reuse has not.)
    public final var isClosed: Bool { locked { $0.pointee.closed } }

    /// The key that comes with every packet of this handle; nil when it is associated with no port.
    public final var completionKey: UInt? { locked { $0.pointee.target == nil ? nil : $0.pointee.key } }

    /// Lends the descriptor for a call by a thread that has no lane here: closing waits for it. -1 when closed.
    final func lendingDescriptor<Result>(_ body: (Int32) -> Result) -> Result {
        let descriptor = locked { state in
            state.pointee.borrowers += 1
            return state.pointee.closed ? -1 : state.pointee.descriptor
        }
        defer {
            locked { state in
                state.pointee.borrowers -= 1
                state.closeIfWanted()
            }
        }
        return body(descriptor)
    }

    @inline(__always)
    final func locked<Result, Failure: Error>(
        _ body: (StatePointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        state.lock()
        defer { state.unlock() }
        return try body(state)
    }

    // MARK: Association

    /// Sends every later completion of this handle to `target`, under `key`. Once only, and for good. An operation
    /// that is already pending goes there too.
    ///
    /// - Throws: EINVAL when the handle is associated already, EBADF when it is closed, ENOSPC or ENOMEM when the
    ///   driver cannot take it.
    public final func associate(with target: CompletionTarget, key: UInt, driver: Driver) throws(SystemError)
    {
        try locked { state throws(SystemError) in
            guard !state.pointee.closed else {
                throw SystemError(EBADF, attempted: "associate a closed handle")
            }
            guard state.pointee.target == nil else {
                throw SystemError(EINVAL, attempted: "associate a handle that belongs to a port already")
            }
            if state.isAwaitingFirstData {
                // The accept is its listener's, and stays in that driver.
                (self as? Socket)?.home = driver
            } else if state.pointee.kind != .file || state.isIdle {
                // A file with operations under way stays with the driver that carries them out: they need no notices,
                // and report to the target wherever they are.
                try state.move(to: driver)
            }
            state.pointee.target = target
            state.pointee.key = key
        }
        // What was pending goes on in the new driver, if it can be started there without a notice.
        if state.pointee.kind == .file { return }
        var completed = CompletionList()
        for direction in [Direction.inward, .outward] {
            state.lock()
            if state.pointee.driver === driver {
                driver.tryHeadAndUnlock(state, state.lane(direction), &completed)
            } else {
                state.unlock()
            }
        }
        completed.deliver()
    }

    // MARK: Posting

    /// Posts an operation. Returns when it is pending or complete: in both cases the result comes by packet, event
    /// or routine, and there is nothing to handle here.
    ///
    /// - Returns: True only if a packet was not wanted for a success at once, `skipsPacket`, and this is one: then nothing
    ///   will come, and the operation is the caller's again, with its results.
    /// - Throws: when the post was not accepted. Then nothing will come, and the operation is the caller's again.
    @discardableResult
    final func post(
        _ operation: Overlapped, _ kind: Operation, _ direction: Direction,
        _ memory: UnsafeMutableRawBufferPointer = .init(start: nil, count: 0), other: Handle? = nil,
        plan: AnyObject? = nil, skipsPacket: Bool = false,
        if check: (StatePointer) throws(SystemError) -> Void = { _ throws(SystemError) in },
        accepted: (StatePointer) -> Void = { _ in }
    ) throws(SystemError) -> Bool {
        state.lock()
        do throws(SystemError) {
            guard !state.pointee.closed else {
                throw SystemError(EBADF, attempted: "post on a closed handle")
            }
            guard operation.routineTarget == nil || state.pointee.target == nil else {
                throw SystemError(EINVAL, attempted: "post with a routine on a handle that belongs to a port")
            }
            try check(state)
            // Without a port it is the system's. A connection that came with first data was its listener's till now.
            if state.pointee.target == nil, state.pointee.driver !== Driver.system, state.isIdle {
                try state.move(to: .system)
            }
            if !state.pointee.registered { try state.pointee.driver!.attach(state) }
            guard operation.begin(kind, memory) else {
                throw SystemError(EALREADY, attempted: "post an operation that is already pending")
            }
        } catch {
            state.unlock()
            throw error
        }
        accepted(state)
        operation.holder = Unmanaged.passRetained(self)
        operation.skipsPacket = skipsPacket
        if other != nil { operation.extras.other = other }
        if plan != nil { operation.extras.plan = plan }
        Recorder.posted(operation.identity, "\(kind)")
        // The lane owns this reference until the operation is complete.
        let reference = Unmanaged.passRetained(operation)
        let lane = state.lane(direction)
        lane.pointee.pending.append(reference)
        var completed = CompletionList()
        // Lent, not counted: it is the system's, which stays for ever, or a port's, which this handle keeps.
        let driver = Unmanaged.passUnretained(state.pointee.driver!)
        let told = driver._withUnsafeGuaranteedRef {
            $0.beginAndUnlock(operation, state, lane, &completed)
        }
        if !completed.isEmpty { completed.deliver() }
        switch told {
        case .nothing: return false
        case .success:
            Recorder.over(operation.identity)
            return true
        case .refusal(let code):
            Recorder.over(operation.identity)
            throw SystemError(code, attempted: "\(kind)")
        }
    }
}
