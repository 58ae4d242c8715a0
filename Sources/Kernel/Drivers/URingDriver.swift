import CKernel
import Glibc
import Synchronization

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
    /// Threads that sleep in the kernel, or are about to.
    private let sleepers = Atomic<Int>(0)
    private let postponement = Lock()
    /// Handles whose next receive is to be put into the ring. One that has been started meanwhile does not matter.
    private var postponed = CircularQueue<StatePointer>(capacity: 256)  // under `postponement`
    private var werePassedOver = false  // under `postponement`

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
        super.init(startsBlindly: true)
        if waiters > 1 { try poller?.add(ring.descriptor, [.readable, .onChange], token: 0) }
    }

    /// A request that does nothing, and is answered at once.
    override func wake() {
        ring.push { ck_sqe_fill($0, UInt8(IORING_OP_NOP.rawValue), -1, 0, nil, 0, 0, 0) }
        ring.submit()
    }

    // MARK: Requests

    override func cancel(_ operation: Overlapped) -> Bool { ring.cancel(UInt64(operation.identity)) }

    override func carry(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool {
        guard operation.isRingOperation, !isForHelpers(operation, state) else { return false }
        #if DEBUG
            Between.pass(.postAndRing, operation)
        #endif
        state.lock()
        // Under the lock: a close of this handle sees either that the request is in the ring, or that it is not yet.
        let isWanted = put(operation, state)
        state.unlock()
        if isWanted { submitIfWanted() }
        return isWanted
    }

    /// A thread that waits for an event does not poll the driver meanwhile, and perhaps no other thread does. So a file's
    /// operation with an event is a helper's, which sets it. (Handles without a port have a thread that takes the answers.)
    private func isForHelpers(_ operation: Overlapped, _ state: StatePointer) -> Bool {
        state.pointee.kind == .file && operation.event != nil && self !== Driver.system
    }

    override func leave(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool {
        guard put(operation, state) else { return false }
        // The lane stays busy: the ring has it. Submitted here, under the lock, since this is the rare path.
        submitIfWanted()
        return true
    }

    private func put(_ operation: Overlapped, _ state: StatePointer) -> Bool {
        state.assertHeld()
        if operation.cancelRequested { return false }
        operation.ring = self
        let descriptor = state.pointee.descriptor
        ring.push { operation.prepare($0, descriptor) }
        return true
    }

    private func submitIfWanted() {
        defer { if isRetired.load(ordering: .relaxed) { takeCare() } }
        switch submission {
        case .atOnce: ring.submit()
        case .withNextWait:
            // A thread that is about to sleep submits everything. One that sleeps already cannot; the fence, between the
            // request and this look, makes sure that it is seen here in `sleepers`.
            atomicMemoryFence(ordering: .sequentiallyConsistent)
            if sleepers.load(ordering: .relaxed) > 0 { ring.submit() }
        case .afterBatch:
            let isHeldBack =
                pthread_getspecific(URingDriver.holder) == Unmanaged.passUnretained(self).toOpaque()
            if !isHeldBack || ring.written >= URingDriver.mostHeldBack { ring.submit() }
        }
    }

    // MARK: After the batch

    /// Requests that lie in the ring before they are handed over in any case.
    private static let mostHeldBack = 32

    /// Of each thread: the driver whose requests it hands over with `flush`.
    private static let holder: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key, nil)
        return key
    }()

    override package func holdBack(_ isHeldBack: Bool) {
        guard submission == .afterBatch else { return }
        pthread_setspecific(
            URingDriver.holder, isHeldBack ? Unmanaged.passUnretained(self).toOpaque() : nil)
    }

    override package func flush() { if submission == .afterBatch { ring.submit() } }

    // MARK: Receives that can wait

    /// A receive that follows one which has just completed would mostly find nothing yet, and what came then would
    /// interrupt this thread in its handlers. So it stays in its lane until the next post there, or until a thread
    /// comes back to wait: before that there is none that could take its answer.
    override func postpone(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool {
        guard operation.operation == .receive, !isAttended else { return false }
        state.lock()
        defer { state.unlock() }
        guard !operation.cancelRequested, state.pointee.driver === self else { return false }
        postponement.locked { postponed.append(state) }
        // A thread that has come to wait may have looked just before this. Both sides hold `postponement`, so either it
        // finds the entry, or `isAttended` shows it here.
        if isAttended { return false }
        lane.pointee.busy = false
        return true
    }

    private var isAttended: Bool {
        sleepers.load(ordering: .relaxed) > 0 || isRetired.load(ordering: .relaxed)
    }

    /// Puts postponed receives into the ring. Behind answers that are there they have to wait, but not twice.
    private func startPostponed(behindAnswers: Bool) {
        let isTheirTurn = postponement.locked {
            werePassedOver = behindAnswers && !werePassedOver && !postponed.isEmpty
            return !werePassedOver
        }
        var isAnyStarted = false
        while isTheirTurn, let state = postponement.locked({ postponed.popFirst() }) {
            state.lock()
            let lane = state.lane(.inward)
            // By now the state may be another handle's: then what is started here is what is to be started anyway.
            if state.pointee.driver === self, !lane.pointee.busy, let head = lane.pointee.pending.head {
                lane.pointee.busy = head._withUnsafeGuaranteedRef { put($0, state) }
                isAnyStarted = true
            }
            state.unlock()
        }
        if isAnyStarted, submission == .atOnce { ring.submit() }
    }

    // MARK: Answers

    override func collect(until deadline: Deadline, _ completed: inout CompletionList) {
        while true {
            // Before it counts the requests, see `submitIfWanted`, and before it starts what is postponed.
            sleepers.add(1, ordering: .sequentiallyConsistent)
            let hasAnswers = ring.hasAnswers
            startPostponed(behindAnswers: hasAnswers)
            if !hasAnswers { wait(until: deadline) } else { flush() }
            sleepers.subtract(1, ordering: .relaxed)
            let isWoken = reap(&completed)
            resumeInterrupted(&completed)
            if isWoken || !completed.isEmpty || completed.hasDelivered || deadline.hasPassed { return }
        }
    }

    override func takeAnswers(_ completed: inout CompletionList) {
        // Counted among those that wait, so that nothing is postponed: what follows may have its answer, too.
        sleepers.add(1, ordering: .sequentiallyConsistent)
        var isWoken = false
        for _ in 0..<URingDriver.roundsAtMost {
            guard ring.hasAnswers else { break }
            isWoken = reap(&completed) || isWoken
        }
        sleepers.subtract(1, ordering: .relaxed)
        // The wake-up was meant for another thread.
        if isWoken { wake() }
    }

    /// As many as a full ring needs.
    private static let roundsAtMost = Int(Ring.completionEntries) / answersPerWait

    private func wait(until deadline: Deadline) {
        if poller == nil || ring.hasOverflow { return ring.submitAndWait(until: deadline) }
        if submission != .atOnce { ring.submit() }
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 1) {
            _ = poller!.wait($0, until: deadline)
        }
    }

    /// Takes the answers that are there, and goes on with what they answer. True when a `wake` was among them.
    private func reap(_ completed: inout CompletionList) -> Bool {
        guard ring.hasAnswers else { return false }
        return withUnsafeTemporaryAllocation(of: io_uring_cqe.self, capacity: URingDriver.answersPerWait) {
            answers in
            let count = ring.pop(answers)
            // Only a change of the ring wakes another waiter: what is left over has to be passed on.
            if poller != nil, ring.hasAnswers { wake() }
            // As over epoll: with many connections all of this has left the cache.
            for answer in answers[..<count] {
                ck_prefetch(UnsafeRawPointer(bitPattern: UInt(answer.user_data)), 5)
            }
            for answer in answers[..<count] { prefetchBehind(answer) }
            var isWoken = false
            for answer in answers[..<count] {
                guard answer.user_data != 0 else {
                    isWoken = true
                    continue
                }
                // The lane owns the operation until its answer has been taken.
                let operation = Unmanaged<Overlapped>.fromOpaque(
                    UnsafeRawPointer(bitPattern: UInt(answer.user_data))!)
                operation._withUnsafeGuaranteedRef { resume($0, answer.res, &completed) }
            }
            return isWoken
        }
    }

    @inline(__always)
    private func prefetchBehind(_ answer: io_uring_cqe) {
        guard let operation = UnsafeRawPointer(bitPattern: UInt(answer.user_data)) else { return }
        Unmanaged<Overlapped>.fromOpaque(operation)._withUnsafeGuaranteedRef { operation in
            // The key of its last life is most often that of this one.
            ck_prefetch(UnsafeRawPointer(bitPattern: operation.key), 7)
            if let state = operation.handle?.state { ck_prefetch(state, 2) }
        }
    }

    private func resume(_ operation: Overlapped, _ answer: Int32, _ completed: inout CompletionList) {
        let isAccepting = operation.operation == .accept && operation.phase == 1
        guard let state = isAccepting ? operation.rare?.other?.state : operation.handle?.state else { return }
        state.lock()
        // The ring has let go of it: from here on this thread is the one that uses the descriptor.
        operation.ring = nil
        let isWanted = !operation.cancelRequested
        let descriptor = state.pointee.descriptor
        let direction: Direction =
            switch operation.operation {
            case .send, .connect, .transmit: .outward
            case .disconnect: operation.phase == 0 ? .outward : .inward
            default: .inward
            }
        state.unlock()
        var outcome = operation.conclude(answer, descriptor, isWanted: isWanted)
        if !isWanted {
            // It ends here; after a close there is not even a descriptor any more.
            switch outcome {
            case .again, .more: outcome = .failed(ECANCELED)
            case .done, .failed: break
            }
        }
        if state.pointee.kind == .file {
            driveFile(operation, state, outcome: outcome, &completed)
        } else if case .again = outcome {
            // The socket is ready for the plain call.
            drive(operation, state, state.lane(direction), descriptor, &completed)
        } else {
            drive(operation, state, state.lane(direction), descriptor, outcome: outcome, &completed)
        }
    }

    // MARK: The end

    /// Requests that are in the ring own memory until they are answered: a thread has to be there to take the answers.
    override func retire() {
        isRetired.store(true, ordering: .sequentiallyConsistent)
        startPostponed(behindAnswers: false)
        takeCare()
    }

    override var hasWork: Bool { ring.hasRequests || hasInterrupted.load(ordering: .relaxed) }
}
