import CKernel
import Glibc
import Synchronization
import Timeline

/// Which of the system's interfaces carries operations out.
public enum DriverKind: String, CaseIterable, Sendable, CustomStringConvertible {
    /// Readiness, turned into completion.
    case epoll
    /// The kernel's own completions.
    case ioUring = "io_uring"

    /// The name that the system gives it.
    public var description: String { rawValue }

    /// The kinds that work here. io_uring needs Linux 6.0, a system that permits it (containers often do not), and memory
    /// that may be locked.
    public static let permitted: [DriverKind] = Ring.obstacle == nil ? [.epoll, .ioUring] : [.epoll]

    /// What is used where nobody chooses: the environment's `PORT_DRIVER`, or epoll.
    public static let standard: DriverKind = {
        guard let name = getenv("PORT_DRIVER").map({ String(cString: $0) }) else { return .epoll }
        guard let kind = DriverKind(rawValue: name) else {
            complain("PORT_DRIVER=\(name) is neither epoll nor io_uring; epoll is used")
            return .epoll
        }
        return kind
    }()

    fileprivate static func complain(_ line: String) {
        let text = "completion ports: \(line)\n"
        _ = text.withCString { Glibc.write(2, $0, strlen($0)) }
    }

    /// Says once that io_uring was asked for, and what is in its way.
    fileprivate static func sayFallback(_ obstacle: SystemError) {
        saidBefore.withLock { said in
            if said.insert(obstacle.code).inserted { complain("\(words(for: obstacle)); epoll is used") }
        }
    }

    private static let saidBefore = Mutex<Set<Int32>>([])

    /// What keeps a ring from being made, as a reader can use it.
    package static func words(for obstacle: SystemError) -> String {
        switch obstacle.code {
        case EPERM, EACCES: return "io_uring is not permitted here"
        case ENOSYS, EINVAL, EOPNOTSUPP: return "io_uring needs Linux 6.0 or later, built with it"
        case ENOMEM:
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit)
            let room = "`ulimit -l` is \(limit.rlim_cur / 1024) KiB for all of a user's rings"
            return "io_uring has no memory to lock: \(room)"
        default: return "io_uring cannot be used: \(obstacle)"
        }
    }
}

/// When a ring hands requests to the kernel.
public enum Submission: Sendable {
    /// With the post: a handler that posts and then computes has started its operation.
    case atOnce
    /// With the next wait: fewer system calls, and nothing starts before its poster waits again.
    case withNextWait
}

/// Carries out posted operations and collects what completes.
///
/// A port has a driver of its own. Handles without a port share one, `Driver.system`, which has a thread.
/// Subclasses know one interface of one operating system each.
public class Driver: @unchecked Sendable {
    /// Which interface this is.
    public let kind: DriverKind
    /// Files are read and written here when the interface itself would block. Threads start on demand.
    let helpers = FileHelpers()

    /// Whether operations can be started before the descriptor is known to be ready.
    final let startsBlindly: Bool

    // Walks that were interrupted, see Interruption.swift.
    final let interruption = Lock()
    final var interrupted = CircularQueue<(StatePointer, Direction)>()  // under `interruption`
    final let hasInterrupted = Atomic<Bool>(false)
    // The time when nobody polls any more, see Caretaker.swift.
    final let isRetired = Atomic<Bool>(false)
    final let retirement = Lock()
    final var hasCaretaker = false  // under `retirement`

    init(kind: DriverKind) {
        self.kind = kind
        startsBlindly = kind == .ioUring
    }

    deinit { helpers.end() }

    /// Makes a driver of a kind, or an epoll driver where no ring can be made, and says once why.
    ///
    /// - Parameter waiters: How many threads will ever wait in it at once.
    public static func make(
        _ kind: DriverKind? = nil, waiters: Int = 1, submission: Submission = .atOnce
    ) throws(SystemError) -> Driver {
        switch kind ?? .standard {
        case .epoll: return try EpollDriver()
        case .ioUring:
            if let obstacle = Ring.obstacle {
                DriverKind.sayFallback(obstacle)
                return try EpollDriver()
            }
            do throws(SystemError) {
                return try URingDriver(waiters: waiters, submission: submission)
            } catch {
                // The first rings of a user may have taken all the memory that there is for them.
                guard error.code == ENOMEM else { throw error }
                DriverKind.sayFallback(error)
                return try EpollDriver()
            }
        }
    }

    /// The driver of all handles without a port, with a thread that waits in it.
    public static let system: Driver = {
        do {
            let driver = try Driver.make()
            _ = try Thread("system driver") {
                while true {
                    var completed = CompletionList()
                    driver.collect(until: .never, &completed)
                    completed.deliver()
                }
            }
            return driver
        } catch {
            fatalError("the driver for handles without a port cannot start: \(error)")
        }
    }()

    /// Waits until something has completed, somebody calls `wake`, or the deadline passes. Completions for `target`
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
    /// count as one: who is woken for something looks whether there is more, and wakes the next.
    public func wake() {}

    /// Nobody will poll this driver any more; what is still under way in it comes to its end all the same, and so does
    /// what is posted from now on.
    public func retire() {
        isRetired.store(true, ordering: .sequentiallyConsistent)
        takeCare()
    }

    /// Whether somebody has to be there who takes what completes.
    var hasWork: Bool { false }

    /// Under the state's lock: gets to know a handle, if it has a descriptor and is not known.
    func attach(_ state: StatePointer) throws(SystemError) {
        if state.pointee.descriptor >= 0 { state.pointee.registered = true }
    }

    /// Under the state's lock: forgets a handle.
    func detach(_ state: StatePointer) { state.pointee.registered = false }

    /// Under the state's lock: asks for an operation that is being carried out to be cancelled. False when it is
    /// complete already, and only nobody has come to take its answer.
    func cancel(_ operation: Overlapped) -> Bool { true }

    /// Without a lock: takes what the interface has completed by now, and would tell who comes to wait.
    func takeAnswers(_ completed: inout CompletionList) {}

    /// Without the lock, by whoever has the lane: hands the head to somebody else, who will resume the lane.
    /// False: it has to be attempted here.
    func carry(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool { false }

    /// Under the lock, after an attempt that found nothing: leaves the lane until the descriptor is ready.
    /// False: it has become ready meanwhile.
    func leave(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool { false }

    /// Without the lock, by whoever has the lane, when the operation before the head has just completed: leaves the lane
    /// for now, to start the head later. False: it has to be started at once.
    func postpone(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool { false }

    // MARK: The way of an operation

    /// Called by a post with the state's lock held, when the operation is in its lane; returns without the lock.
    /// Returns the system's number when the operation was refused at once: then nothing was posted.
    final func begin(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ completed: inout CompletionList
    ) -> Int32 {
        Recorder.mark(.pending, operation.identity)
        if state.pointee.kind == .file {
            return beginFile(operation, state, lane, &completed)
        }
        guard !lane.pointee.busy, !lane.pointee.isInterrupted, lane.pointee.ready || startsBlindly else {
            state.unlock()
            return 0
        }
        // Not busy and worth a start: then the lane was empty, and the head is this operation; or it is one that was
        // postponed, or has just moved here, and whose mover has not come to start it.
        let head = lane.pointee.pending.head!
        lane.pointee.busy = true
        lane.pointee.ready = false
        let descriptor = state.pointee.descriptor
        state.unlock()
        return head._withUnsafeGuaranteedRef {
            drive($0, state, lane, descriptor, refusable: $0 === operation, &completed)
        }
    }

    /// The same for a file. What may have to wait for the disk goes to a helper, or into the ring, whose kernel knows as
    /// well which reads need no disk.
    private final func beginFile(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ completed: inout CompletionList
    ) -> Int32 {
        let isBehindAnother = lane.pointee.busy
        // The system lets one write into a file at a time: behind another, whoever posts would stand in line there.
        let isAlone = lane.pointee.pending.head?.toOpaque() == Unmanaged.passUnretained(operation).toOpaque()
        if operation.operation == .write, !startsBlindly { lane.pointee.busy = true }
        let descriptor = state.pointee.descriptor
        state.unlock()
        // Whoever is writing this file comes to this write, too.
        if isBehindAnother { return 0 }
        var outcome = isAlone ? operation.attemptWriteToMemory(descriptor) : nil
        if outcome == nil {
            if carry(operation, state, lane) { return 0 }
            outcome = operation.attemptReadFromMemory(descriptor)
        }
        guard let outcome else {
            helpers.run(operation, self)
            return 0
        }
        // What others have posted meanwhile is not this thread's to write.
        let next = stepFile(operation, state, lane, outcome, &completed)
        next?._withUnsafeGuaranteedRef { helpers.run($0, self) }
        return 0
    }

    /// Carries out the operations of a lane, one after the other, as far as they go. The caller has set `busy`;
    /// nobody else touches the head until this clears it, or hands the lane on.
    @discardableResult
    final func drive(
        _ first: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ descriptor: Int32,
        outcome known: Attempt? = nil, refusable: Bool = false, onHelper: Bool = false,
        limit: Int = Walk.stepsAtMost, _ completed: inout CompletionList
    ) -> Int32 {
        var walk = Walk(known: known, refusable: refusable, onHelper: onHelper, limit: limit)
        // Lent, not counted: the lane owns its operations, and the lane is this thread's.
        var head: Unmanaged? = Unmanaged.passUnretained(first)
        while let operation = head {
            head = operation._withUnsafeGuaranteedRef {
                step($0, state, lane, descriptor, &walk, &completed)
            }
        }
        return walk.refusal
    }

    /// One step of the operation at the head. Returns the operation that the walk goes on with: this one or the next;
    /// nil when the lane has been left. Then this one may be complete and gone.
    @inline(__always)
    private final func step(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ descriptor: Int32,
        _ walk: inout Walk, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        let outcome: Attempt
        if let answer = walk.known.take() {
            outcome = answer
        } else {
            // It may complete on another thread from here on: what this lane has completed goes first.
            if !walk.isFirst, startsBlindly || operation.operation == .transmit { completed.deliver() }
            if operation.operation == .transmit, !walk.onHelper,
                walk.pieces >= Walk.piecesAtMost || !operation.isNextPieceInMemory
            {
                helpers.run(operation, self)
                return nil
            }
            if startsBlindly {
                if !walk.isFirst, postpone(operation, state, lane) { return nil }
                if carry(operation, state, lane) { return nil }
            }
            if operation.operation == .transmit { walk.pieces += 1 }
            outcome = operation.attempt(descriptor)
        }
        var moved: Handle?
        switch outcome {
        case .more:
            walk.refusable = false
            #if DEBUG
                Between.pass(.twoSteps, operation)
            #endif
            // Between two steps nobody but this thread has the operation: a cancel or a close can only have left
            // its wish here, and the descriptor may be gone.
            state.lock()
            guard operation.cancelRequested else {
                walk.steps += 1
                if walk.steps >= Walk.stepsAtMost {
                    interrupt(.passUnretained(operation), state, lane, walk)
                    return nil
                }
                state.unlock()
                return Unmanaged.passUnretained(operation)
            }
            complete(operation, state, lane, bytes: operation.progress, code: ECANCELED, &completed)
        case .again:
            walk.refusable = false
            state.lock()
            operation.ring = nil
            if operation.cancelRequested {
                complete(operation, state, lane, bytes: operation.progress, code: ECANCELED, &completed)
            } else {
                // To wait in the driver that the handle has now: it may have moved during the attempt.
                let isLeft = (state.pointee.driver ?? self).leave(operation, state, lane)
                state.unlock()
                return isLeft ? nil : Unmanaged.passUnretained(operation)
            }
        case .done(let bytes, let drained):
            state.lock()
            if !drained || lane.pointee.ended { lane.pointee.ready = true }
            switch operation.operation {
            case .receive where bytes == 0 && state.wasReset(operation.buffer.count, descriptor):
                complete(operation, state, lane, bytes: 0, code: ECONNRESET, &completed)
            case .receive, .send: complete(operation, state, lane, bytes: bytes, code: 0, &completed)
            default: moved = succeed(operation, state, lane, bytes, &completed)
            }
        case .failed(let code):
            state.lock()
            lane.pointee.ready = true
            if walk.refusable, operation.operation == .send || operation.operation == .receive {
                walk.refusal = state.note(code)
                refuse(operation, lane)
            } else {
                complete(operation, state, lane, bytes: operation.progress, code: code, &completed)
            }
        }
        // The lock is held, and the head has left the lane.
        walk.refusable = false
        walk.isFirst = false
        guard let next = lane.pointee.pending.head else {
            lane.pointee.busy = false
            state.closeIfWanted()
            state.unlock()
            if let moved { goOn(moved, &completed) }
            return nil
        }
        return goOn(to: next, state, lane, &walk, moved, &completed)
    }

    /// Under the lock, and returns without it: whether the walk goes on with the next operation of the lane.
    private final func goOn(
        to next: Unmanaged<Overlapped>, _ state: StatePointer, _ lane: LanePointer, _ walk: inout Walk,
        _ moved: Handle?, _ completed: inout CompletionList
    ) -> Unmanaged<Overlapped>? {
        // The handle may have another driver meanwhile: then the next operation is to wait there.
        let home = state.pointee.driver ?? self
        walk.steps += 1
        guard lane.pointee.ready || home.startsBlindly else {
            lane.pointee.busy = false
            state.closeIfWanted()
            state.unlock()
            if let moved { goOn(moved, &completed) }
            return nil
        }
        if home !== self {
            lane.pointee.busy = false
            home.tryHead(state, lane, &completed)
        } else if walk.steps >= walk.limit {
            interrupt(next, state, lane, walk)
        } else {
            lane.pointee.ready = false
            state.unlock()
            if let moved { goOn(moved, &completed) }
            return next
        }
        if let moved { goOn(moved, &completed) }
        return nil
    }

    /// The same for a file. Reads do not wait for one another. Writes that a helper carries out do: the system lets one
    /// write into a file at a time, and a second helper would only stand in line there.
    final func driveFile(
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
        head?._withUnsafeGuaranteedRef { helpers.run($0, self) }
    }

    /// One operation of a file. Returns the write that is to be carried out next.
    private final func stepFile(
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

    /// Under the lock: takes the operation out of its lane, writes its result down, and sends it on its way.
    private final func complete(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, bytes: Int, code: Int32,
        _ completed: inout CompletionList
    ) {
        let reference = Unmanaged.passUnretained(operation)
        // Looking is cheaper than letting go of nothing.
        if operation.ring != nil { operation.ring = nil }
        lane.pointee.pending.remove(reference)
        operation.finish(state, bytes: bytes, code: code)
        completed.append(reference)
    }

    /// Under the lock: takes back a post that failed at once.
    private final func refuse(_ operation: Overlapped, _ lane: LanePointer) {
        let reference = Unmanaged.passUnretained(operation)
        lane.pointee.pending.remove(reference)
        operation.takeBack()
        reference.release()
    }

    /// Under the lock, and returns with it: an operation has succeeded. Some have a second half elsewhere: an
    /// accept that wants first data waits on the new connection for it, a disconnect for the other side's end.
    /// Then the handle is returned in whose inward lane it goes on, as soon as the lock is free.
    private final func succeed(
        _ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer, _ bytes: Int,
        _ completed: inout CompletionList
    ) -> Handle? {
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
    private final func goOn(_ connection: Handle, _ completed: inout CompletionList) {
        let state = connection.state
        #if DEBUG
            state.locked { $0.lane(.inward).pointee.pending.head }?._withUnsafeGuaranteedRef {
                Between.pass(.clientAndFirstData, $0)
            }
        #endif
        state.lock()
        let driver = state.pointee.driver ?? self
        driver.tryHead(state, state.lane(.inward), &completed)
    }

    /// Under the lock, and returns without it: attempts the head of a lane that is not being driven.
    final func tryHead(
        _ state: StatePointer, _ lane: LanePointer, limit: Int = Walk.stepsAtMost,
        _ completed: inout CompletionList
    ) {
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
