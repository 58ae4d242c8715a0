import Kernel
import Synchronization

/// How a connection waits for bytes.
public enum ReceiveMode: UInt8, Sendable, CustomStringConvertible {
    /// With a receive that has a buffer: the bytes come with the packet, and until then the buffer's pages are locked.
    case buffered
    /// With a receive that has none: the packet says no more than that there is something to be read, and nothing is
    /// locked. Win32 counterpart: a zero-byte `WSARecv`.
    case zeroByte

    /// In a word.
    public var description: String { self == .buffered ? "buffered" : "zero-byte" }
}

/// Where the adaptive mode changes over, and where it changes back.
///
/// The numbers are of connections, since their number does not depend on the mode. The pages that are locked do: they
/// fall as soon as the mode has changed, and would change it back. And the numbers lie apart, since otherwise one client
/// that comes and goes would change the mode each time. (I7.6)
public struct ReceiveThresholds: Sendable, Equatable {
    /// From so many connections on: zero bytes.
    public var zeroByteFrom: Int
    /// From so many connections down: buffers again. Less than the other number.
    public var bufferedUpTo: Int

    /// Names both numbers.
    public init(zeroByteFrom: Int, bufferedUpTo: Int) {
        self.zeroByteFrom = zeroByteFrom
        self.bufferedUpTo = bufferedUpTo
    }

    /// Changes over when one buffer for each connection would lock three quarters of the budget: the last quarter is for
    /// the second reads of those that talk. Changes back at half of the budget.
    public init(budget pages: Int, pagesEach: Int) {
        let all = pages / max(1, pagesEach)
        self.init(zeroByteFrom: max(2, all * 3 / 4), bufferedUpTo: max(1, min(all / 2, all * 3 / 4 - 1)))
    }
}

/// The mode that holds now, and what changes it. Any thread may ask.
public final class ModeSwitch: Sendable {
    /// Where it changes; nil: never.
    public let thresholds: ReceiveThresholds?
    private let present: Atomic<ReceiveMode.RawValue>
    private let toZeroByte = Atomic<Int>(0)
    private let toBuffered = Atomic<Int>(0)

    /// A switch that changes at these numbers, and begins in this mode.
    public init(_ first: ReceiveMode = .buffered, changingAt thresholds: ReceiveThresholds?) {
        self.thresholds = thresholds
        present = Atomic(first.rawValue)
    }

    /// The mode for the next receive.
    public var mode: ReceiveMode {
        present.load(ordering: .sequentiallyConsistent) == ReceiveMode.buffered.rawValue
            ? .buffered : .zeroByte
    }

    /// How often the mode has changed.
    public var changesMade: (toZeroByte: Int, toBuffered: Int) {
        (toZeroByte.load(ordering: .relaxed), toBuffered.load(ordering: .relaxed))
    }

    /// To be told of every change of the number of connections, one call at a time.
    ///
    /// - Returns: true when the mode is zero bytes from now on: then receives that are pending with a buffer are to be
    ///   cancelled, or idle connections would keep their pages locked.
    public func connectionsAre(_ count: Int) -> Bool {
        guard let thresholds else { return false }
        if count >= thresholds.zeroByteFrom { return change(to: .zeroByte) }
        if count <= thresholds.bufferedUpTo { _ = change(to: .buffered) }
        return false
    }

    /// To be told when the budget did not suffice for the only receive of a connection, whatever the number of
    /// connections: others use the budget, too.
    ///
    /// - Returns: as `connectionsAre`.
    public func budgetRanShort() -> Bool { thresholds != nil && change(to: .zeroByte) }

    private func change(to mode: ReceiveMode) -> Bool {
        let other = mode == .buffered ? ReceiveMode.zeroByte : .buffered
        let isChanged = present.compareExchange(
            expected: other.rawValue, desired: mode.rawValue, ordering: .sequentiallyConsistent
        ).exchanged
        guard isChanged else { return false }
        switch mode {
        case .zeroByte: toZeroByte.add(1, ordering: .relaxed)
        case .buffered: toBuffered.add(1, ordering: .relaxed)
        }
        return true
    }
}
