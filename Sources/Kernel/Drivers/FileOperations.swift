import Glibc

/// The way of an operation on a file. Its names tell what they do with the lock, as in Walking.swift.
extension Driver {
    /// Gives an operation to a helper thread. Its lane owns it until it is complete.
    func runOnHelper(_ operation: Overlapped) {
        helpers.run((Unmanaged.passUnretained(operation), Unmanaged.passUnretained(self)))
    }

    /// On a helper thread: carries an operation out, and what follows it in its lane.
    func help(_ operation: Unmanaged<Overlapped>) {
        var completed = CompletionList()
        operation._withUnsafeGuaranteedRef { operation in
            #if DEBUG
                Between.pass(.queueAndHelper, operation)
            #endif
            guard let state = operation.handle?.state else { return }
            if state.pointee.kind == .file {
                driveFile(operation, state, &completed)
            } else {
                let (descriptor, isCancelled) = state.locked {
                    ($0.pointee.descriptor, operation.cancelRequested)
                }
                drive(
                    operation, state, state.lane(.outward), descriptor,
                    outcome: isCancelled ? .failed(ECANCELED) : nil, onHelper: true, &completed)
            }
        }
        completed.deliver()
    }

    /// The same for a file. What may have to wait for the disk goes to a helper, or into the ring, whose kernel knows as
    /// well which reads need no disk.
    func beginFileAndUnlock(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ completed: inout CompletionList
    ) {
        let isBehindAnother = lane.pointee.busy
        // The system lets one write into a file at a time: behind another, the posting thread would stand in line there.
        let isAlone = lane.pointee.pending.head?.toOpaque() == Unmanaged.passUnretained(operation).toOpaque()
        if operation.operation == .write, !startsBlindly { lane.pointee.busy = true }
        let descriptor = state.pointee.descriptor
        state.unlock()
        // The thread that is writing this file comes to this write, too.
        if isBehindAnother { return }
        var outcome = isAlone ? operation.attemptWriteToMemory(descriptor) : nil
        if outcome == nil {
            if carry(operation, state, lane) { return }
            outcome = operation.attemptReadFromMemory(descriptor)
        }
        guard let outcome else {
            runOnHelper(operation)
            return
        }
        // What others have posted meanwhile is not this thread's to write.
        let next = stepFile(operation, state, lane, outcome, &completed)
        next?._withUnsafeGuaranteedRef { runOnHelper($0) }
    }

    /// The same for a file. Reads do not wait for one another. Writes that a helper carries out do: the system lets one
    /// write into a file at a time, and a second helper would only stand in line there.
    func driveFile(
        _ first: Overlapped, _ state: StatePointer, outcome known: Attempt? = nil,
        _ completed: inout CompletionList
    ) {
        let lane = state.lane(first.operation == .write ? .outward : .inward)
        var known = known
        var head: Unmanaged? = Unmanaged.passUnretained(first)
        for _ in 0..<Walk.stepsAtMost {
            guard let operation = head else { return }
            head = operation._withUnsafeGuaranteedRef { stepFile($0, state, lane, known.take(), &completed) }
            if head != nil { completed.deliver() }
        }
        // Other files' operations may wait for a helper.
        head?._withUnsafeGuaranteedRef { runOnHelper($0) }
    }

    /// One operation of a file. Returns the write that is to be carried out next.
    func stepFile(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ known: Attempt?,
        _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        var known = known
        while true {
            state.lock()
            let descriptor = state.pointee.descriptor
            switch known {
            case .more where operation.cancelRequested, .again where operation.cancelRequested,
                nil where operation.cancelRequested:
                complete(operation, state, lane, bytes: operation.progress, code: ECANCELED, &completed)
            case .done(let bytes, _): complete(operation, state, lane, bytes: bytes, code: 0, &completed)
            case .failed(let code):
                complete(operation, state, lane, bytes: operation.progress, code: code, &completed)
            case .more, .again, nil:
                operation.ring = nil
                state.unlock()
                if known != nil, carry(operation, state, lane) { return nil }
                known = operation.attempt(descriptor)
                continue
            }
            let next = lane.pointee.busy ? lane.pointee.pending.head : nil
            lane.pointee.busy = next != nil
            state.closeIfWanted()
            state.unlock()
            return next
        }
    }
}
