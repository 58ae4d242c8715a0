import Glibc
import Timeline

/// The way of an operation on a socket: from its post, or a notice, along its lane.
///
/// A function whose name ends in `AndUnlock` is called with the state's lock and returns without it, on every path. Every
/// other one returns as it was called; what has to be called with the lock says so, and asserts it.
extension Driver {
    /// Called by a post with the state's lock held, when the operation is in its lane; returns without the lock.
    func beginAndUnlock(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ completed: inout CompletionList
    ) -> Walk.Told {
        state.assertHeld()
        Recorder.mark(.pending, operation.identity)
        if state.pointee.kind == .file {
            beginFileAndUnlock(operation, state, lane, &completed)
            return .nothing
        }
        guard !lane.pointee.busy, !lane.pointee.isInterrupted, lane.pointee.ready || startsBlindly else {
            state.unlock()
            return .nothing
        }
        // The head is usually this operation. It is an older one only if that was postponed (io_uring), or if the handle has
        // just changed drivers.
        let head = lane.pointee.pending.head!
        lane.pointee.busy = true
        lane.pointee.ready = false
        let descriptor = state.pointee.descriptor
        state.unlock()
        return head._withUnsafeGuaranteedRef {
            drive($0, state, lane, descriptor, isInPost: $0 === operation, &completed)
        }
    }

    /// Carries out the operations of a lane, one after the other, as far as they go. The caller has set `busy`;
    /// no other thread touches the head until this clears it, or hands the lane on.
    @discardableResult
    func drive(
        _ first: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ descriptor: Int32,
        outcome known: Attempt? = nil, isInPost: Bool = false, onHelper: Bool = false,
        limit: Int = Walk.stepsAtMost, _ completed: inout CompletionList
    ) -> Walk.Told {
        var walk = Walk(
            state: state, lane: lane, descriptor: descriptor, known: known, isInPost: isInPost,
            onHelper: onHelper, limit: limit)
        // Lent, not counted: the lane owns its operations, and the lane is this thread's.
        var head: Unmanaged? = Unmanaged.passUnretained(first)
        while let operation = head {
            head = operation._withUnsafeGuaranteedRef { step($0, &walk, &completed) }
        }
        return walk.told
    }

    /// One step of the operation at the head. Without a lock, before and after. Returns the operation that the walk goes on
    /// with: this one or the next; nil when the lane has been left. Then this one may be complete and gone.
    @inline(__always)
    private func step(
        _ operation: Overlapped, _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        let outcome: Attempt
        if let known = walk.known.take() {
            outcome = known
        } else if let found = attempt(operation, &walk, &completed) {
            outcome = found
        } else {
            return nil
        }
        switch outcome {
        case .more: return goOn(with: operation, &walk, &completed)
        case .again: return wait(operation, &walk, &completed)
        case .done(let bytes, let drained): return end(operation, bytes, drained, &walk, &completed)
        case .failed(let code): return end(operation, code, &walk, &completed)
        }
    }

    /// Without a lock: an attempt at the head. Nil when a helper or the ring has the lane now.
    @inline(__always)
    private func attempt(
        _ operation: Overlapped, _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Attempt? {
        let isTransmit = operation.operation == .transmit
        // It may complete on another thread from here on: what this lane has completed goes first.
        if !walk.isFirst, startsBlindly || isTransmit { completed.deliver() }
        if isTransmit, !walk.onHelper, walk.pieces >= Walk.piecesAtMost || !operation.isNextPieceInMemory {
            runOnHelper(operation)
            return nil
        }
        if startsBlindly {
            if !walk.isFirst, postpone(operation, walk.state, walk.lane) { return nil }
            if carry(operation, walk.state, walk.lane) { return nil }
        }
        if isTransmit { walk.pieces += 1 }
        return operation.attempt(walk.descriptor)
    }

    // MARK: What came of the attempt. Each takes the lock, and has given it back when it returns.

    /// A step was done, and the next may follow.
    private func goOn(
        with operation: Overlapped, _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        walk.isInPost = false
        #if DEBUG
            Between.pass(.twoSteps, operation)
        #endif
        // Between two steps this thread owns the operation. A cancel or a close only sets `cancelRequested`: it is looked at
        // before the descriptor is used, which may be gone.
        walk.state.lock()
        if operation.cancelRequested { return cancelAndUnlock(operation, &walk, &completed) }
        walk.steps += 1
        if walk.steps >= Walk.stepsAtMost {
            interruptAndUnlock(.passUnretained(operation), walk)
            return nil
        }
        walk.state.unlock()
        return .passUnretained(operation)
    }

    /// Nothing could be done now.
    @inline(__always)
    private func wait(
        _ operation: Overlapped, _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        walk.isInPost = false
        walk.state.lock()
        operation.ring = nil
        if operation.cancelRequested { return cancelAndUnlock(operation, &walk, &completed) }
        // To wait in the driver that the handle has now: it may have moved during the attempt.
        let isLeft = (walk.state.pointee.driver ?? self).leave(operation, walk.state, walk.lane)
        walk.state.unlock()
        return isLeft ? nil : .passUnretained(operation)
    }

    /// It is complete, as far as this lane goes.
    @inline(__always)
    private func end(
        _ operation: Overlapped, _ bytes: Int, _ drained: Bool, _ walk: inout Walk,
        _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        let (state, lane) = (walk.state, walk.lane)
        var moved: Handle?
        state.lock()
        if !drained || lane.pointee.ended { lane.pointee.ready = true }
        switch operation.operation {
        case .receive where bytes == 0 && state.wasReset(operation.buffer.count, walk.descriptor):
            complete(operation, state, lane, bytes: 0, code: ECONNRESET, &completed)
        case .send where operation.skipsPacket && walk.isInPost:
            operation.result = bytes
            operation.key = state.pointee.key
            takeBack(operation, state, lane)
            walk.told = .success
        case .receive, .send: complete(operation, state, lane, bytes: bytes, code: 0, &completed)
        default: moved = succeed(operation, state, lane, bytes, &completed)
        }
        return nextAndUnlock(&walk, moved, &completed)
    }

    /// It failed; or was refused, if its poster has not been told anything yet.
    private func end(
        _ operation: Overlapped, _ code: Int32, _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        let (state, lane) = (walk.state, walk.lane)
        state.lock()
        lane.pointee.ready = true
        if walk.isInPost, operation.operation == .send || operation.operation == .receive {
            walk.told = .refusal(state.note(code))
            takeBack(operation, state, lane)
        } else {
            complete(operation, state, lane, bytes: operation.progress, code: code, &completed)
        }
        return nextAndUnlock(&walk, nil, &completed)
    }

    // MARK: Under the lock, which they give back

    private func cancelAndUnlock(
        _ operation: Overlapped, _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        complete(operation, walk.state, walk.lane, bytes: operation.progress, code: ECANCELED, &completed)
        return nextAndUnlock(&walk, nil, &completed)
    }

    /// The head has left the lane: whether the walk goes on with the next one. `moved` has the second half of it.
    @inline(__always)
    private func nextAndUnlock(
        _ walk: inout Walk, _ moved: Handle?, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        walk.state.assertHeld()
        walk.isInPost = false
        walk.isFirst = false
        var next: Unmanaged<Overlapped>?
        if let head = walk.lane.pointee.pending.head {
            next = goOnAndUnlock(to: head, &walk, &completed)
        } else {
            walk.leaveAndUnlock()
        }
        if let moved { goOn(in: moved, &completed) }
        return next
    }

    /// Goes on to the next operation; or leaves it to a notice, to another driver, or for the other connections' turn.
    private func goOnAndUnlock(
        to next: Unmanaged<Overlapped>, _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        let (state, lane) = (walk.state, walk.lane)
        walk.steps += 1
        if let home = state.pointee.driver, home !== self {
            // The handle has another driver meanwhile: the next operation is to wait there.
            if !lane.pointee.ready, !home.startsBlindly {
                walk.leaveAndUnlock()
            } else {
                lane.pointee.busy = false
                home.tryHeadAndUnlock(state, lane, &completed)
            }
        } else if !lane.pointee.ready, !startsBlindly {
            walk.leaveAndUnlock()
        } else if walk.steps >= walk.limit {
            interruptAndUnlock(next, walk)
        } else {
            lane.pointee.ready = false
            state.unlock()
            return next
        }
        return nil
    }

    /// With the lock, which it gives back: attempts the head of a lane along which no thread walks.
    func tryHeadAndUnlock(
        _ state: StatePointer, _ lane: LanePointer, limit: Int = Walk.stepsAtMost,
        _ completed: inout CompletionList
    ) {
        state.assertHeld()
        guard !lane.pointee.busy, !lane.pointee.isInterrupted, lane.pointee.ready || startsBlindly,
            let head = lane.pointee.pending.head
        else {
            return state.unlock()
        }
        lane.pointee.busy = true
        lane.pointee.ready = false
        let descriptor = state.pointee.descriptor
        state.unlock()
        head._withUnsafeGuaranteedRef { _ = drive($0, state, lane, descriptor, limit: limit, &completed) }
    }
}
