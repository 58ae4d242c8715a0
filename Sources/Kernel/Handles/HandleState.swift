import Glibc

/// What is asked and done under the lock of a handle's state.
extension UnsafeMutablePointer where Pointee == HandleState {
    @inline(__always)
    func locked<Result>(_ body: (StatePointer) -> Result) -> Result {
        lock()
        defer { unlock() }
        return body(self)
    }

    @inline(__always)
    func lanes(_ body: (LanePointer) -> Void) {
        body(lane(.inward))
        body(lane(.outward))
    }

    /// Whether nothing is pending.
    var isIdle: Bool {
        assertHeld()
        return lane(.inward).pointee.pending.head == nil && lane(.outward).pointee.pending.head == nil
    }

    /// Whether this is the connection of an accept that waits for first data.
    var isAwaitingFirstData: Bool {
        assertHeld()
        return pointee.kind == .socket
            && lane(.inward).pointee.pending.head?._withUnsafeGuaranteedRef { $0.operation } == .accept
    }

    /// Operations are this driver's from now on. When it cannot take the handle, they stay where they are.
    func move(to driver: Driver) throws(SystemError) {
        assertHeld()
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

    /// When no call with this descriptor is under way.
    func closeDescriptor() {
        assertHeld()
        pointee.closing = false
        let descriptor = pointee.descriptor
        pointee.descriptor = -1
        if pointee.registered { pointee.driver?.detach(self) }
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// For a thread that has just left a busy lane: closes the descriptor, if a close waits for that.
    @inline(__always)
    func closeIfWanted() {
        assertHeld()
        if pointee.closing && !isInCall { closeDescriptor() }
    }
}

extension HandleState {
    mutating func clear() {
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
