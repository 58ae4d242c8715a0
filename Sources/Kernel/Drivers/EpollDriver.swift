import CKernel
import Glibc
import Synchronization

/// Turns readiness into completion.
///
/// A socket is registered once, for both directions and for changes only, and stays registered for its life. A
/// notice says no more than *try*: it marks the lane as ready and starts what is pending there. What is posted on
/// a lane that is known to be ready is attempted at once.
final class EpollDriver: Driver, @unchecked Sendable {
    private let poller: Poller
    private let alarm: Int32
    /// Handles that are known here: something can be pending on each of them.
    private let registered = Atomic<Int>(0)

    /// Notices taken in one wait. That many operations are carried out before the first is handled: with more of them,
    /// what the kernel knows of the first connection has left the processor's cache when its handler sends.
    private static let noticesPerWait = 16
    private static let alarmToken: UInt64 = 0

    init() throws(SystemError) {
        poller = try Poller()
        alarm = try check("create an event descriptor") {
            eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        }
        super.init(startsBlindly: false)
        // For changes only: each write is a change, so the count never has to be read away.
        try poller.add(alarm, [.readable, .onChange], token: EpollDriver.alarmToken)
    }

    deinit { close(alarm) }

    override func wake() { _ = eventfd_write(alarm, 1) }

    override func attach(_ state: StatePointer) throws(SystemError) {
        guard state.pointee.kind != .file, state.pointee.descriptor >= 0, !state.pointee.registered else {
            return
        }
        try poller.add(
            state.pointee.descriptor, [.readable, .urgent, .writable, .ended, .onChange],
            token: UInt64(UInt(bitPattern: state)))
        state.pointee.registered = true
        registered.add(1, ordering: .sequentiallyConsistent)
        if isRetired.load(ordering: .sequentiallyConsistent) { takeCare() }
    }

    override func detach(_ state: StatePointer) {
        state.assertHeld()
        guard state.pointee.registered else { return }
        poller.remove(state.pointee.descriptor)
        state.pointee.registered = false
        let left = registered.subtract(1, ordering: .sequentiallyConsistent).newValue
        // The caretaker has nothing more to wait for.
        if left == 0, isRetired.load(ordering: .sequentiallyConsistent) { wake() }
    }

    override var hasWork: Bool { registered.load(ordering: .sequentiallyConsistent) > 0 }

    override func leave(_ operation: Overlapped, _ state: StatePointer, _ lane: LanePointer) -> Bool {
        if lane.pointee.ready {
            lane.pointee.ready = false
            return false
        }
        // Nothing was found, and no notice came since: what was noticed before the attempt is used up.
        lane.pointee.ended = false
        lane.pointee.busy = false
        return true
    }

    override func collect(until deadline: Deadline, _ completed: inout CompletionList) {
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: EpollDriver.noticesPerWait) { events in
            var isWoken = false
            repeat {
                let count = poller.wait(events, until: deadline)
                // With many connections none of this is in the cache any more: fetch all of it at once.
                for event in events[..<count] { prefetchState(of: event) }
                for event in events[..<count] { prefetchOperation(of: event) }
                for event in events[..<count] {
                    guard event.data.u64 != EpollDriver.alarmToken else {
                        isWoken = true
                        continue
                    }
                    // Valid even if the handle is gone: states are recycled, never given back.
                    let state = StatePointer(bitPattern: UInt(event.data.u64))!
                    notice(.init(rawValue: event.events), state, &completed)
                }
                resumeInterrupted(&completed)
            } while !isWoken && completed.isEmpty && !completed.hasDelivered && !deadline.hasPassed
        }
    }

    @inline(__always)
    private func prefetchState(of event: epoll_event) {
        guard let state = UnsafeRawPointer(bitPattern: UInt(event.data.u64)) else { return }
        ck_prefetch(state, 2)
    }

    /// Fetches what is pending inward, and what the key stands for, by a look without the lock: what it finds may be out of
    /// date, and nothing relies on it. A key is most often the address of a connection; if it is a number, nothing is fetched.
    @inline(__always)
    private func prefetchOperation(of event: epoll_event) {
        guard let state = StatePointer(bitPattern: UInt(event.data.u64)) else { return }
        ck_prefetch_behind(state.lane(.inward), 5)
        ck_prefetch_behind(UnsafeRawPointer(state) + MemoryLayout<HandleState>.offset(of: \.key)!, 7)
    }

    private func notice(
        _ readiness: Poller.Readiness, _ state: StatePointer, _ completed: inout CompletionList
    ) {
        state.lock()
        let hasFailed = readiness.contains(.failed) || readiness.rawValue & EPOLLHUP.rawValue != 0
        if hasFailed || readiness.contains(.writable) {
            let lane = state.lane(.outward)
            lane.pointee.ready = true
            if lane.pointee.pending.head != nil {
                tryHeadAndUnlock(state, lane, &completed)
                state.lock()
            }
        }
        let lane = state.lane(.inward)
        if !readiness.isDisjoint(with: .anythingInward) {
            lane.pointee.ready = true
            // The end, or an urgent byte: an attempt that gets less than it asked for has not got everything.
            if !readiness.isDisjoint(with: .moreThanBytes) { lane.pointee.ended = true }
        }
        tryHeadAndUnlock(state, lane, &completed)
    }
}
