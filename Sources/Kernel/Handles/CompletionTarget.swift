import Synchronization
import Timeline

/// Where completions go: a port, or the APC queue of a thread.
open class CompletionTarget: @unchecked Sendable {
    /// For subclasses.
    public init() {}

    /// Takes over completed operations. Called on any thread, with no lock of the kernel held.
    open func take(_ completed: inout CompletionList) {}

    /// Whether packets with this key are here that no worker has taken out yet. Asked with the lock of a handle held, and
    /// only by `Handle.reassociate`: to be answered without a call to the kernel.
    open func holdsPackets(withKey key: UInt) -> Bool { false }
}

/// Operations that have completed and are on their way, in order. Each is owned by the list until it is taken.
///
/// An operation is in one list at a time, so the list is made of the operations themselves: nothing is allocated.
public struct CompletionList: ~Copyable {
    @usableFromInline var head: Unmanaged<Overlapped>?
    @usableFromInline var tail: Unmanaged<Overlapped>?

    /// An empty list.
    public init() {}

    /// True when completions went straight to another target. A waiter then returns, although the list is empty.
    private(set) var hasDelivered = false

    /// Whether nothing is in the list.
    public var isEmpty: Bool { head == nil }

    mutating func append(_ operation: Unmanaged<Overlapped>) {
        operation._withUnsafeGuaranteedRef { $0.next = nil }
        if let tail { tail._withUnsafeGuaranteedRef { $0.next = operation } } else { head = operation }
        tail = operation
    }

    /// The oldest operation, with the list's reference to it: the caller releases it, or hands it on.
    @inlinable
    public mutating func popFirst() -> Unmanaged<Overlapped>? {
        guard let first = head else { return nil }
        head = first._withUnsafeGuaranteedRef { $0.next }
        if head == nil { tail = nil }
        return first
    }

    /// Brings every operation to where it belongs: sets its event, and gives it to its target, if it has one.
    /// Those that belong to `mine` stay behind, ready to be queued.
    mutating func deliver(except mine: CompletionTarget? = nil) {
        var kept = CompletionList()
        kept.hasDelivered = hasDelivered || !isEmpty
        while let operation = popFirst() {
            let (target, signal, handle) = operation._withUnsafeGuaranteedRef { $0.conclude() }
            if let signal { signal.set() }
            if let target {
                if let mine, target.toOpaque() == Unmanaged.passUnretained(mine).toOpaque() {
                    kept.append(operation)
                } else {
                    var one = CompletionList()
                    one.append(operation)
                    // `handle` keeps its port alive until the packet is queued.
                    target._withUnsafeGuaranteedRef { $0.take(&one) }
                }
            } else {
                if signal != nil { operation._withUnsafeGuaranteedRef { $0.wasAnnounced() } }
                operation.release()
            }
            handle?.release()
        }
        self = kept
    }
}

extension Overlapped {
    /// The last that the kernel does with an operation. Without a packet it may be posted again as soon as the
    /// state says idle, so everything that is still needed is taken out before that.
    @inline(__always)
    fileprivate final func conclude() -> (Unmanaged<CompletionTarget>?, Signal?, Unmanaged<Handle>?) {
        let finished = (destination, rare?.event, holder.take())
        if let rare {
            if operation == .accept, code != 0, phase == 0 { (rare.other as? Socket)?.disclaim() }
            rare.forget()
        }
        Recorder.mark(.queued, identity)
        let last = finished.1 == nil ? State.idle : State.announcing
        leavePending(finished.0 == nil ? last : State.queued)
        return finished
    }

    /// Marks a pending operation, so that the thread that completes it wakes those that wait. False when it is not pending.
    fileprivate final func isToBeAwaited() -> Bool {
        let (isMarked, found) = state.compareExchange(
            expected: State.pending, desired: State.awaited, ordering: .acquiringAndReleasing)
        return isMarked || found == State.awaited
    }

    /// The event is set: from here on the operation may be posted again.
    fileprivate final func wasAnnounced() { state.store(State.idle, ordering: .releasing) }
}

/// Lets a thread wait for an operation that carries no event: `Overlapped.wait`.
final class Completions: Sendable {
    static let shared = Completions()
    private let monitor = Monitor()

    /// An operation that was awaited is not pending any more.
    func announce() { monitor.locked { monitor.broadcast() } }

    func wait(for operation: Overlapped, until deadline: Deadline) -> Bool {
        monitor.locked {
            while operation.isToBeAwaited() {
                if !monitor.wait(until: deadline) { return !operation.isPending }
            }
            return true
        }
    }
}

extension Overlapped {
    /// Waits until the operation is no longer pending; false when the deadline has passed first.
    /// Win32 counterpart: waiting on the file handle itself.
    public final func wait(until deadline: Deadline = .never) -> Bool {
        Completions.shared.wait(for: self, until: deadline)
    }
}
