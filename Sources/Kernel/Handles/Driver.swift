import Synchronization

/// Carries out posted operations and collects what completes.
///
/// A port has a driver of its own. Handles without a port share one, `Driver.system`, which has a thread.
/// Subclasses know one interface of one operating system each.
public class Driver: @unchecked Sendable {
    /// Carry out what would block: reads and writes that wait for the disk. More of them would not make a disk faster.
    final let helpers = HelperThreads<(Unmanaged<Overlapped>, Unmanaged<Driver>)>("file helper", limit: 4) {
        (operation, driver) in
        driver._withUnsafeGuaranteedRef { $0.help(operation) }
    }

    /// Whether operations can be started before the descriptor is known to be ready.
    final let startsBlindly: Bool

    // Walks that were interrupted, see Interruption.swift.
    final let interruption = Lock()
    final var interrupted = CircularQueue<(StatePointer, Direction)>()  // under `interruption`
    final let hasInterrupted = Atomic<Bool>(false)
    // When no thread polls any more, see Caretaker.swift.
    final let isRetired = Atomic<Bool>(false)
    final let retirement = Lock()
    final var hasCaretaker = false  // under `retirement`

    init(startsBlindly: Bool) { self.startsBlindly = startsBlindly }

    deinit { helpers.end() }

    /// From here on the calling thread hands its requests over with `flush`; or at once, as other threads do.
    package func holdBack(_ isHeldBack: Bool) {}

    /// Hands over what has been held back, by whichever thread.
    package func flush() {}

    /// Waits until something has completed, a thread calls `wake`, or the deadline passes. Completions for `target`
    /// are handed to it by appending to `completed`; all others are delivered on the way.
    ///
    /// Any number of threads up to the driver's `waiters` may wait at once.
    public final func poll(
        for target: CompletionTarget, until deadline: Deadline, _ completed: inout CompletionList
    ) {
        collect(until: deadline, &completed)
        if !completed.isEmpty { completed.deliver(except: target) }
    }

    // MARK: What a subclass provides

    /// Waits as `poll` does, and appends what has completed, undelivered.
    func collect(until deadline: Deadline, _ completed: inout CompletionList) {}

    /// Makes one waiting thread return, or the next that would wait. Any thread may call it. Two calls in a row may
    /// count as one: a thread that is woken for something looks whether there is more, and wakes the next.
    public func wake() {}

    /// No thread will poll this driver any more; what is still under way in it comes to its end all the same, and so does
    /// what is posted from now on.
    public func retire() {
        isRetired.store(true, ordering: .sequentiallyConsistent)
        takeCare()
    }

    /// Whether a thread has to be there that takes what completes.
    var hasWork: Bool { false }

    /// Under the state's lock: gets to know a handle, if it has a descriptor and is not known.
    func attach(_ state: StatePointer) throws(SystemError) {
        if state.pointee.descriptor >= 0 { state.pointee.registered = true }
    }

    /// Under the state's lock: forgets a handle.
    func detach(_ state: StatePointer) { state.pointee.registered = false }

    /// Under the state's lock: asks for an operation that is being carried out to be cancelled. False when it is
    /// complete already, and only its answer has not been taken.
    func cancel(_ operation: Overlapped) -> Bool { true }

    /// Without a lock: takes what the interface has completed by now, and would give to the next waiter.
    func takeAnswers(_ completed: inout CompletionList) {}

    /// Without the lock, by the thread that has the lane: hands the head to the kernel, whose answer will resume the lane.
    /// False: it has to be attempted here.
    func carry(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool { false }

    /// Under the lock, after an attempt that found nothing: leaves the lane until the descriptor is ready.
    /// False: it has become ready meanwhile.
    func leave(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool { false }

    /// Without the lock, by the thread that has the lane, when the operation before the head has just completed: leaves it
    /// for now, to start the head later. False: it has to be started at once.
    func postpone(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool { false }
}
