import Glibc

/// A walk along one lane makes so many steps, and then it is the others' turn: a connection that always has something
/// would keep its driver for as long as it has.
struct Walk {
    let state: StatePointer
    let lane: LanePointer
    let descriptor: Int32
    /// What came of the first operation, if somebody else has carried it out.
    var known: Attempt?
    /// Whether the first operation can still be refused, since its poster has not been told anything.
    var refusable: Bool
    let onHelper: Bool
    /// Steps after which the walk does not go on to another operation.
    let limit: Int
    var isFirst = true
    /// Steps that were followed by another.
    var steps = 0
    /// Pieces of transmits that were sent.
    var pieces = 0
    var refusal: Int32 = 0

    /// Steps that anybody takes at once. One that throws away what comes takes as many bytes as `drainPiece` says.
    static let stepsAtMost = 16
    /// As many pieces are sent by a thread that has others to serve: head, a piece of the file, tail. The rest of a
    /// longer one, or the next ones, are a helper's.
    static let piecesAtMost = 3

    /// Under the lock, and gives it back: nobody walks along this lane any more.
    @inline(__always)
    func leaveAndUnlock() {
        lane.pointee.busy = false
        state.closeIfWanted()
        state.unlock()
    }
}

extension Driver {
    /// Under the lock of a lane that this thread walks, and returns without it: leaves the lane for now. Somebody who
    /// comes to the driver goes on, and somebody who waits there is woken for it. A helper goes on itself, when it has
    /// served those who wait for one.
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

    /// Without a lock, by who has come to the driver and has seen what is new there: goes on with the walks that were
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
