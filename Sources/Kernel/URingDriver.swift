import CKernel
import Glibc

/// The kernel completes operations by itself: a request goes into the ring, its answer comes out.
///
/// Only the head of a lane is in the ring, since the ring promises no order between two receives of one socket.
/// What a ring cannot do as one request (connecting with first data, disconnecting, transmitting a file) is done
/// by plain calls, and the ring tells when the socket is ready for them.
final class URingDriver: Driver, @unchecked Sendable {
    private let ring: Ring
    private let submission: Submission
    // With several waiters they wait here, for the ring's descriptor: the ring itself would wake all of them.
    private let poller: Poller?

    /// Answers taken at a time. A kilobyte of them lies on the stack; more would be allocated at every wait.
    private static let answersPerWait = 64

    init(waiters: Int, submission: Submission) throws(SystemError) {
        ring = try Ring()
        self.submission = submission
        if waiters > 1 {
            poller = try Poller()
        } else {
            poller = nil
        }
        super.init(kind: .ioUring)
        if waiters > 1 { try poller?.add(ring.descriptor, [.readable, .onChange], token: 0) }
    }

    override var startsBlindly: Bool { true }

    /// A request that does nothing, and is answered at once.
    override func wake() {
        ring.push { ck_sqe_fill($0, UInt8(IORING_OP_NOP.rawValue), -1, 0, nil, 0, 0, 0) }
        ring.submit()
    }

    /// Requests that are in the ring own memory until they are answered: somebody has to take the answers.
    override func retire() {
        guard ring.hasRequests else { return }
        _ = try? Thread("retired ring") { [self] in
            while ring.hasRequests {
                var completed = CompletionList()
                collect(until: .never, &completed)
                completed.deliver()
            }
        }
    }

    override func willClose(_ state: StatePointer) {
        // A request that still lies in the ring names its descriptor by number: hand it over while it is valid.
        if submission == .withNextWait { ring.submit() }
    }

    override func cancel(_ operation: Overlapped) {
        if operation.ring === self { ring.cancel(UInt64(operation.identity)) }
    }

    override func carry(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool {
        guard operation.isRingOperation else { return false }
        state.lock()
        // Under the lock: who closes this handle sees either that the request is in the ring, or that it is not yet.
        let isWanted = put(operation, state)
        state.unlock()
        if isWanted, submission == .atOnce { ring.submit() }
        return isWanted
    }

    override func leave(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool {
        guard put(operation, state) else { return false }
        // The lane stays busy: the ring has it. Submitted here, under the lock, since this is the rare path.
        if submission == .atOnce { ring.submit() }
        return true
    }

    private func put(_ operation: Overlapped, _ state: StatePointer) -> Bool {
        if operation.cancelRequested { return false }
        operation.ring = self
        let descriptor = state.pointee.descriptor
        ring.push { operation.prepare($0, descriptor) }
        return true
    }

    override func collect(until deadline: Deadline, _ completed: inout CompletionList) {
        if submission == .withNextWait, ring.hasAnswers == false, deadline.isNever == false { ring.submit() }
        if reap(&completed) { return }
        while true {
            if poller != nil, !ring.hasOverflow {
                if submission == .withNextWait { ring.submit() }
                withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 1) {
                    _ = poller!.wait($0, until: deadline)
                }
            } else {
                ring.submitAndWait(until: deadline)
            }
            if reap(&completed) || deadline.hasPassed { return }
        }
    }

    /// Takes the answers that are there, and goes on with what they answer. False when there were none.
    private func reap(_ completed: inout CompletionList) -> Bool {
        guard ring.hasAnswers else { return false }
        return withUnsafeTemporaryAllocation(of: io_uring_cqe.self, capacity: URingDriver.answersPerWait) {
            answers in
            let count = ring.pop(answers)
            for answer in answers[..<count] where answer.user_data != 0 {
                // The lane owns the operation until its answer has been taken.
                let operation = Unmanaged<Overlapped>.fromOpaque(
                    UnsafeRawPointer(bitPattern: UInt(answer.user_data))!)
                operation._withUnsafeGuaranteedRef { resume($0, answer.res, &completed) }
            }
            return count > 0
        }
    }

    private func resume(_ operation: Overlapped, _ answer: Int32, _ completed: inout CompletionList) {
        let isAccepting = operation.operation == .accept && operation.phase == 1
        guard let state = isAccepting ? operation.other?.state : operation.handle?.state else { return }
        state.lock()
        // The ring has let go of it: from here on this thread is the one that uses the descriptor.
        operation.ring = nil
        let descriptor = state.pointee.descriptor
        let direction: Direction =
            switch operation.operation {
            case .send, .connect, .transmit: .outward
            case .disconnect: operation.phase == 0 ? .outward : .inward
            default: .inward
            }
        state.unlock()
        let outcome = operation.conclude(answer, descriptor)
        if state.pointee.kind == .file {
            driveFile(operation, state, outcome: outcome, &completed)
        } else if case .again = outcome {
            // The socket is ready for the plain call.
            drive(operation, state, state.lane(direction), descriptor, &completed)
        } else {
            drive(operation, state, state.lane(direction), descriptor, outcome: outcome, &completed)
        }
    }
}
