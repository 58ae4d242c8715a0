import Glibc

/// The two ends that a caller can ask for: of an operation, and of a handle.
extension Handle {
    /// Asks for one operation, or all of this handle, to be cancelled. It asks, no more: the operation may still
    /// finish normally, and its completion comes either way, exactly once. Memory stays the driver's until then.
    ///
    /// - Returns: false when nothing was pending that could be cancelled. That is no error; a packet may still be
    ///   on its way. Win32 counterpart: `CancelIoEx`, and `ERROR_NOT_FOUND`.
    @discardableResult
    public func cancel(_ operation: Overlapped? = nil) -> Bool {
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

    /// Carries out what could be carried out by now, in case no thread has polled the driver since: what has come before a
    /// cancel or a close is the operation's. A ring mostly has its answers already; but they may be one step of several.
    private func catchUp(_ completed: inout CompletionList) {
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
                driver.tryHeadAndUnlock(state, lane, limit: .max, &completed)
            }
        }
        attending?.takeAnswers(&completed)
    }

    /// Completes what waits, and asks the driver to cancel what is being carried out.
    func cancelPending(
        _ completed: inout CompletionList, where isWanted: (Overlapped) -> Bool
    ) -> Bool {
        state.assertHeld()
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
    public func close() {
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
