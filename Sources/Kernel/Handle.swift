import CKernel
import Glibc
import Timeline

/// A socket or a file that operations can be posted on.
///
/// A handle is open until `close`, or until nobody refers to it and nothing is pending on it. Every method may be
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
        // Nothing is pending, or this handle would still be referred to. So nobody but a late notice looks here.
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

    /// Lends the descriptor for a call by somebody who has no lane here: closing waits for it. -1 when closed.
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
                // A file whose operations somebody has in hand stays with him: they need no notices, and report to the
                // target wherever they are.
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
                driver.tryHead(state, state.lane(direction), &completed)
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
    /// - Throws: when the post was not accepted. Then nothing will come, and the operation is the caller's again.
    final func post(
        _ operation: Overlapped, _ kind: Operation, _ direction: Direction,
        _ memory: UnsafeMutableRawBufferPointer = .init(start: nil, count: 0), other: Handle? = nil,
        plan: AnyObject? = nil,
        if check: (StatePointer) throws(SystemError) -> Void = { _ throws(SystemError) in },
        accepted: (StatePointer) -> Void = { _ in }
    ) throws(SystemError) {
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
        let refusal = driver._withUnsafeGuaranteedRef { $0.begin(operation, state, lane, &completed) }
        if !completed.isEmpty { completed.deliver() }
        if refusal != 0 {
            Recorder.refused(operation.identity)
            throw SystemError(refusal, attempted: "\(kind)")
        }
    }

    // MARK: Cancelling and closing

    /// Asks for one operation, or all of this handle, to be cancelled. It asks, no more: the operation may still
    /// finish normally, and its completion comes either way, exactly once. Memory stays the driver's until then.
    ///
    /// - Returns: false when nothing was pending that could be cancelled. That is no error; a packet may still be
    ///   on its way. Win32 counterpart: `CancelIoEx`, and `ERROR_NOT_FOUND`.
    @discardableResult
    public final func cancel(_ operation: Overlapped? = nil) -> Bool {
        var completed = CompletionList()
        catchUp(&completed)
        // An accept that waits on its new connection is its listener's to cancel.
        let isWanted = { [self] (pending: Overlapped) in
            pending.handle === self && (operation == nil || pending === operation)
        }
        state.lock()
        var found = cancelPending(&completed, where: isWanted)
        let connections = Array(awaitingFirstData.values)
        state.unlock()
        for connection in connections {
            connection.catchUp(&completed)
            found = connection.locked { _ in connection.cancelPending(&completed, where: isWanted) } || found
        }
        completed.deliver()
        return found
    }

    /// Carries out what could be carried out by now, if nobody has asked the driver since: what has come before a
    /// cancel or a close is the operation's. A ring mostly has its answers already; but they may be one step of several.
    private final func catchUp(_ completed: inout CompletionList) {
        var attending: Driver?
        for direction in [Direction.inward, .outward] {
            state.lock()
            let lane = state.lane(direction)
            let head = lane.pointee.pending.head?._withUnsafeGuaranteedRef { $0.operation }
            guard let driver = state.pointee.driver, state.pointee.kind != .file, !state.pointee.closed,
                head != nil
            else {
                state.unlock()
                continue
            }
            attending = driver
            if head == .transmit {
                state.unlock()
            } else {
                lane.pointee.ready = true
                lane.pointee.isInterrupted = false
                // The other side's end may have come, too: until an attempt finds nothing.
                lane.pointee.ended = true
                // All that are pending, however many.
                driver.tryHead(state, lane, limit: .max, &completed)
            }
        }
        attending?.takeAnswers(&completed)
    }

    /// Under the lock: completes what waits, and asks the driver for what is being carried out.
    final func cancelPending(
        _ completed: inout CompletionList, where isWanted: (Overlapped) -> Bool
    ) -> Bool {
        var found = false
        state.lanes { lane in
            var cursor = lane.pointee.pending.head
            while let reference = cursor {
                let operation = reference._withUnsafeGuaranteedRef { $0 }
                cursor = operation.next
                guard isWanted(operation) else { continue }
                let wasFound = found
                found = true
                let isCarriedOut =
                    state.pointee.kind == .file
                    || (lane.pointee.busy && reference.toOpaque() == lane.pointee.pending.head?.toOpaque())
                if isCarriedOut {
                    operation.cancelRequested = true
                    if let ring = operation.ring, !ring.cancel(operation) { found = wasFound }
                } else {
                    lane.pointee.pending.remove(reference)
                    operation.finish(state, bytes: operation.progress, code: ECANCELED)
                    completed.append(reference)
                }
            }
        }
        return found
    }

    /// Closes the handle. Everything pending on it completes with `SystemError.cancelled`, or normally if it was
    /// quicker; those packets may come after this call has returned. A second call does nothing.
    ///
    /// Win32 counterpart: `closesocket`, `CloseHandle`.
    public final func close() {
        var completed = CompletionList()
        catchUp(&completed)
        state.lock()
        guard !state.pointee.closed else {
            state.unlock()
            return completed.deliver()
        }
        state.pointee.closed = true
        let descriptor = state.pointee.descriptor
        let isClaimed = descriptor < 0 && state.pointee.bound
        _ = cancelPending(&completed) { _ in true }
        let connections = Array(awaitingFirstData.values)
        if descriptor >= 0 {
            // A thread that is inside a system call with this number closes it on its way out.
            state.pointee.closing = true
            state.closeIfWanted()
        }
        let target = state.pointee.target
        state.unlock()
        // A client that has said nothing yet goes with the listener that it came to.
        for connection in connections {
            connection.catchUp(&completed)
            connection.locked { _ in
                _ = connection.cancelPending(&completed) { $0.handle === self }
            }
        }
        // And an accept that is to fill this socket, and has no client yet.
        if isClaimed { (self as? Socket)?.giveUpAccept(&completed) }
        completed.deliver()
        withExtendedLifetime(target) {}
    }
}

extension UnsafeMutablePointer where Pointee == HandleState {
    @inline(__always)
    fileprivate func lanes(_ body: (LanePointer) -> Void) {
        body(lane(.inward))
        body(lane(.outward))
    }

    /// Under the lock: whether nothing is pending.
    var isIdle: Bool {
        lane(.inward).pointee.pending.head == nil && lane(.outward).pointee.pending.head == nil
    }

    /// Under the lock: whether this is the connection of an accept that waits for first data.
    fileprivate var isAwaitingFirstData: Bool {
        pointee.kind == .socket
            && lane(.inward).pointee.pending.head?._withUnsafeGuaranteedRef { $0.operation } == .accept
    }

    /// Under the lock: operations are this driver's from now on. When it cannot take the handle, they stay where they are.
    func move(to driver: Driver) throws(SystemError) {
        let former = pointee.driver
        if pointee.registered, former !== driver { former?.detach(self) }
        do throws(SystemError) {
            try driver.attach(self)
        } catch {
            try? former?.attach(self)
            throw error
        }
        pointee.driver = driver
        // What the former driver was about to go on with, this one starts.
        lanes { $0.pointee.isInterrupted = false }
    }

    /// Whether a thread is, or will soon be, inside a system call with this descriptor. What is in a ring does
    /// not count: there the kernel holds the descriptor itself.
    private var isInCall: Bool {
        if pointee.borrowers > 0 { return true }
        if pointee.kind == .file {
            for direction in [Direction.inward, .outward] {
                var cursor = lane(direction).pointee.pending.head
                while let operation = cursor?._withUnsafeGuaranteedRef({ $0 }) {
                    if operation.ring == nil { return true }
                    cursor = operation.next
                }
            }
            return false
        }
        let isInCall = { (lane: LanePointer) in
            lane.pointee.busy && lane.pointee.pending.head?._withUnsafeGuaranteedRef { $0.ring } == nil
        }
        return isInCall(lane(.inward)) || isInCall(lane(.outward))
    }

    /// Under the lock, when no call with this descriptor is under way.
    func closeDescriptor() {
        pointee.closing = false
        let descriptor = pointee.descriptor
        pointee.descriptor = -1
        if pointee.registered { pointee.driver?.detach(self) }
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// Under the lock, by whoever has just left a busy lane.
    @inline(__always)
    func closeIfWanted() {
        if pointee.closing && !isInCall { closeDescriptor() }
    }
}

extension HandleState {
    fileprivate mutating func clear() {
        descriptor = -1
        closed = false
        closing = false
        bound = false
        listening = false
        connected = false
        sendShutDown = false
        isBecomingFresh = false
        reset = false
        registered = false
        key = 0
        target = nil
        driver = nil
    }
}

extension Overlapped {
    /// Under the lock of the handle in whose lane the operation was: writes the result down, and where it goes.
    @inline(__always)
    final func finish(_ state: StatePointer, bytes: Int, code: Int32) {
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
