import Kernel

/// When a session has taken too long: a value, which is shown what there is to see, and says which limit is over. (I11.6)
///
/// It counts only the time in which the other side could have done something: while this side does not read, no silence is
/// held against it.
struct SessionClock {
    /// What it is shown.
    struct View {
        /// A whole message has come, or the program is content without one.
        var isWelcome = false
        /// When bytes came last; since when half a message is there, or 0.
        var heard: UInt64 = 0, frameBegan: UInt64 = 0
        /// Something is to be sent; this side reads nothing at present; it has said that it sends no more.
        var isSending = false, isPaused = false, isFinishing = false
        /// Bytes that the other side's system has taken.
        var acknowledged: UInt64 = 0
    }

    private let began: UInt64
    /// Before this nothing is held against the other side.
    private var fairFrom: UInt64
    private var stalledFrom: UInt64 = 0
    private var closingFrom: UInt64 = 0
    private var acknowledged: UInt64 = 0

    init(_ now: UInt64) {
        began = now
        fairFrom = now
    }

    /// The limit that is over at this moment, if one is.
    mutating func judge(_ now: UInt64, _ view: View, _ limits: Limits) -> Limit? {
        func isOver(_ limit: Duration?, since: UInt64) -> Bool {
            guard let limit else { return false }
            return now > since && .nanoseconds(Int64(now - since)) >= limit
        }
        let hasMoved = view.acknowledged != acknowledged
        acknowledged = view.acknowledged
        if !view.isSending || hasMoved || stalledFrom == 0 { stalledFrom = now }
        if view.isSending || view.isPaused { fairFrom = now }
        if isOver(limits.stall, since: stalledFrom) { return .stall }
        if view.isFinishing {
            // What the system still has is taken, too, as long as it moves.
            if view.isSending || hasMoved || closingFrom == 0 { closingFrom = now }
            return isOver(limits.close, since: closingFrom) ? .close : nil
        }
        if !view.isWelcome { return isOver(limits.handshake, since: began) ? .handshake : nil }
        if view.frameBegan > 0, isOver(limits.message, since: max(view.frameBegan, fairFrom)) {
            return .message
        }
        return isOver(limits.idle, since: max(view.heard, fairFrom)) ? .idle : nil
    }
}
