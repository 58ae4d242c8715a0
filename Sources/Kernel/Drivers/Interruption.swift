import Glibc

/// A walk along one lane makes a limited number of steps, and then it is the other connections' turn: one that always
/// has something to do would otherwise keep its driver's thread for good.
struct Walk {
    let state: StatePointer
    let lane: LanePointer
    let descriptor: Int32
    /// What came of the first operation, if that is known already: a ring has carried it out, or it was cancelled.
    var known: Attempt?
    /// The first operation is still inside its post: its poster can be told what has come of it.
    var isInPost: Bool
    let onHelper: Bool
    /// Steps after which the walk does not go on to another operation.
    let limit: Int
    var isFirst = true
    /// Steps that were followed by another.
    var steps = 0
    /// Pieces of transmits that were sent.
    var pieces = 0
    var told = Told.nothing

    /// What a post tells its caller; everything else comes by packet.
    enum Told {
        case nothing
        /// The operation was refused, with the system's number: nothing was posted.
        case refusal(Int32)
        /// It has succeeded, and its poster did not want a packet for that.
        case success
    }

    /// Steps that one walk makes. A step that throws away what comes takes as many bytes as `drainPiece` says.
    static let stepsAtMost = 16
    /// Pieces of transmits that a thread with other connections to serve sends in one walk: a head, a piece of a file, a
    /// tail. A helper sends the rest.
    static let piecesAtMost = 3

    /// With the lock, which it gives back: the walk along this lane is over.
    @inline(__always)
    func leaveAndUnlock() {
        state.assertHeld()
        lane.pointee.busy = false
        state.closeIfWanted()
        state.unlock()
    }
}

extension Driver {
    /// With the lock of a lane that this thread walks, which it gives back: leaves the lane for now. The next thread that
    /// polls the driver goes on, and one that waits there is woken for it. A helper goes on itself, when it has served the
    /// operations that wait for a helper.
    func interruptAndUnlock(_ next: Unmanaged<Overlapped>, _ walk: borrowing Walk) {
        let (state, lane) = (walk.state, walk.lane)
        state.assertHeld()
        if walk.onHelper {
            state.unlock()
            return next._withUnsafeGuaranteedRef { runOnHelper($0) }
        }
        let home = state.pointee.driver ?? self
        // Worth an attempt, until one finds nothing.
        lane.pointee.ready = true
        lane.pointee.busy = false
        state.closeIfWanted()
        lane.pointee.isInterrupted = true
        let direction: Direction = lane == state.lane(.inward) ? .inward : .outward
        home.interruption.locked {
            home.interrupted.append((state, direction))
            home.hasInterrupted.store(true, ordering: .releasing)
        }
        state.unlock()
        home.wake()
        if home.isRetired.load(ordering: .relaxed) { home.takeCare() }
    }

    /// Without a lock, by a thread that has polled the driver and taken what is new: goes on with the walks that were
    /// interrupted before.
    @inline(__always)
    final func resumeInterrupted(_ completed: inout CompletionList) {
        if hasInterrupted.load(ordering: .acquiring) { resumeInterruptedOnes(&completed) }
    }

    private final func resumeInterruptedOnes(_ completed: inout CompletionList) {
        for _ in 0..<interruption.locked({ interrupted.count }) {
            let next = interruption.locked {
                let next = interrupted.popFirst()
                if interrupted.isEmpty { hasInterrupted.store(false, ordering: .relaxed) }
                return next
            }
            guard let (state, direction) = next else { return }
            state.lock()
            // By now the state may be another handle's: then what is attempted here is attempted in vain.
            let lane = state.lane(direction)
            lane.pointee.isInterrupted = false
            if let driver = state.pointee.driver {
                driver.tryHeadAndUnlock(state, lane, &completed)
            } else {
                state.unlock()
            }
        }
    }
}
