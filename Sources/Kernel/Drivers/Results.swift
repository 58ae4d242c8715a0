import Glibc

/// What is done with an operation that has come to its end in a lane. All of it under the lock, before and after.
extension Driver {
    /// Takes the operation out of its lane, writes its result down, and sends it on its way.
    func complete(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, bytes: Int, code: Int32,
        _ completed: inout CompletionList
    ) {
        state.assertHeld()
        let reference = Unmanaged.passUnretained(operation)
        // Looking is cheaper than letting go of nothing.
        if operation.ring != nil { operation.ring = nil }
        lane.pointee.pending.remove(reference)
        operation.finish(state, bytes: bytes, code: code)
        completed.append(reference)
    }

    /// Takes back what its post tells of: nothing else will.
    func takeBack(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) {
        state.assertHeld()
        let reference = Unmanaged.passUnretained(operation)
        lane.pointee.pending.remove(reference)
        operation.takeBack()
        reference.release()
    }

    /// An operation has succeeded. Some have a second half elsewhere: an accept that wants first data waits on the new
    /// connection for it, a disconnect for the other side's end. Then the handle is returned in whose inward lane it goes
    /// on, as soon as the lock is free.
    func succeed(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ bytes: Int,
        _ completed: inout CompletionList
    ) -> Handle? {
        state.assertHeld()
        switch (operation.operation, operation.phase) {
        case (.accept, 0):
            guard let socket = operation.rare?.other as? Socket else { break }
            let descriptor = Int32(operation.result)
            operation.result = 0
            operation.ring = nil
            // The new connection is locked first: everywhere, a connection before its listener. The lane is this
            // thread's meanwhile.
            state.unlock()
            #if DEBUG
                Between.pass(.clientAndAdoption, operation)
            #endif
            let accepted = socket.state
            accepted.lock()
            state.lock()
            defer { accepted.unlock() }
            // A cancelled accept that has its connection already, and wants no more, was quicker.
            guard socket.adopt(descriptor, unless: operation.cancelRequested && operation.wantsFirstData)
            else {
                complete(operation, state, lane, bytes: 0, code: ECANCELED, &completed)
                return nil
            }
            guard operation.wantsFirstData else {
                if accepted.pointee.target != nil { try? accepted.pointee.driver?.attach(accepted) }
                break
            }
            operation.phase = 1
            // It waits where its listener's operations wait: the socket's own port, if it has one, may be busy with
            // something else.
            socket.home = accepted.pointee.driver
            accepted.pointee.driver = state.pointee.driver
            do throws(SystemError) {
                try accepted.pointee.driver?.attach(accepted)
            } catch {
                complete(operation, state, lane, bytes: 0, code: error.code, &completed)
                return nil
            }
            let reference = Unmanaged.passUnretained(operation)
            lane.pointee.pending.remove(reference)
            accepted.lane(.inward).pointee.pending.append(reference)
            accepted.lane(.inward).pointee.ready = true
            operation.handle?.awaitingFirstData[ObjectIdentifier(operation)] = socket
            return socket
        case (.disconnect, 0) where operation.wantsReuse:
            operation.phase = 1
            operation.ring = nil
            let reference = Unmanaged.passUnretained(operation)
            lane.pointee.pending.remove(reference)
            state.lane(.inward).pointee.pending.append(reference)
            state.lane(.inward).pointee.ready = true
            return operation.handle
        case (.disconnect, 1):
            operation.ring = nil
            state.makeFresh()
        case (.connect, _):
            state.pointee.connected = true
        default: break
        }
        complete(operation, state, lane, bytes: bytes, code: 0, &completed)
        return nil
    }

    /// The second half of an operation, in the inward lane of its connection.
    func goOn(in connection: Handle, _ completed: inout CompletionList) {
        let state = connection.state
        #if DEBUG
            state.locked { $0.lane(.inward).pointee.pending.head }?._withUnsafeGuaranteedRef {
                Between.pass(.clientAndFirstData, $0)
            }
        #endif
        state.lock()
        let driver = state.pointee.driver ?? self
        driver.tryHeadAndUnlock(state, state.lane(.inward), &completed)
    }
}
