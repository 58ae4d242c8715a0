import Synchronization
import Timeline

/// Where completions go: a port, or the APC queue of a thread.
open class CompletionTarget: @unchecked Sendable {
    /// For subclasses.
    public init() {}

    /// Takes over completed operations. Called on any thread, with no lock of the kernel held.
    open func take(_ completed: inout CompletionList) {}
}

/// Operations that have completed and are on their way, in order. Each is owned by the list until it is taken.
///
/// An operation is in one list at a time, so the list is made of the operations themselves: nothing is allocated.
public struct CompletionList: ~Copyable {
    private var head: Unmanaged<Overlapped>?
    private var tail: Unmanaged<Overlapped>?
    /// How many operations are in the list.
    public private(set) var count = 0

    /// An empty list.
    public init() {}

    /// Something was in the list, and has been delivered already: also a reason to come back from a wait.
    private(set) var hasDelivered = false

    /// Whether nothing is in the list.
    public var isEmpty: Bool { count == 0 }

    mutating func append(_ operation: Unmanaged<Overlapped>) {
        operation._withUnsafeGuaranteedRef { $0.next = nil }
        if let tail { tail._withUnsafeGuaranteedRef { $0.next = operation } } else { head = operation }
        tail = operation
        count += 1
    }

    /// The oldest operation, with the list's reference to it: the caller releases it, or hands it on.
    public mutating func popFirst() -> Unmanaged<Overlapped>? {
        guard let first = head else { return nil }
        head = first._withUnsafeGuaranteedRef { $0.next }
        if head == nil { tail = nil }
        count -= 1
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
    fileprivate final func conclude() -> (Unmanaged<CompletionTarget>?, Signal?, Unmanaged<Handle>?) {
        if operation == .accept, code != 0, phase == 0 { (other as? Socket)?.disclaim() }
        let finished = (destination, event, holder.take())
        // Mostly there is nothing, and looking is cheaper than letting go of nothing.
        if other != nil { other = nil }
        if extra != nil { extra = nil }
        Recorder.mark(.queued, identity)
        let last = finished.1 == nil ? State.idle : State.announcing
        // Sequentially consistent: `announce` must not look for waiters before this can be seen.
        state.store(finished.0 == nil ? last : State.queued, ordering: .sequentiallyConsistent)
        Completions.shared.announce()
        return finished
    }

    /// The event is set: from here on the operation may be posted again.
    fileprivate final func wasAnnounced() { state.store(State.idle, ordering: .releasing) }
}

/// Lets a thread wait for an operation that carries no event: `Overlapped.wait`.
final class Completions: Sendable {
    static let shared = Completions()
    private let monitor = Monitor()
    private let waiting = Atomic<Int>(0)

    /// Sequentially consistent on both sides: either the waiter sees the state or this sees the waiter.
    @inline(__always)
    func announce() {
        if waiting.load(ordering: .sequentiallyConsistent) != 0 { monitor.locked { monitor.broadcast() } }
    }

    func wait(for operation: Overlapped, until deadline: Deadline) -> Bool {
        waiting.add(1, ordering: .sequentiallyConsistent)
        defer { waiting.subtract(1, ordering: .sequentiallyConsistent) }
        return monitor.locked {
            while operation.state.load(ordering: .sequentiallyConsistent) == Overlapped.State.pending {
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
