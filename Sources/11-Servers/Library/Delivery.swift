import Contexts
import Glibc
import Kernel

/// Messages that count as sent only when the program at the other end has said that it has them. They are kept until then, so
/// that they can be sent again on another connection. (I11.7)
final class Delivery: Sendable {
    /// Who sends them: the name goes along with each, and stays the same over all connections.
    private let sender = UInt64.random(in: 1 ... .max)
    /// The most bytes of a message; nil where none is acknowledged.
    private let longest: Int?
    private let state = Guarded<(last: UInt64, kept: [Message])>((0, []))

    struct Message: Sendable {
        let number: UInt64
        let token: Int
        /// As they are sent: behind the sender and the number, of eight bytes each.
        let bytes: [UInt8]
    }

    /// Bytes of a tag, the sender and the number in front of a message.
    static let head = 17
    /// The most that are kept: no more than the other side remembers.
    static let limit = SeenMessages.memory

    init(longest: Int?) { self.longest = longest }

    /// Keeps a message, under a number of its own.
    ///
    /// - Throws: EOPNOTSUPP where nothing is acknowledged, EMSGSIZE, ENOBUFS when too many are kept already.
    func keep(_ message: RawSpan, _ token: Int) throws(SystemError) -> Message {
        guard let longest else { throw SystemError(EOPNOTSUPP, attempted: "have a message acknowledged") }
        guard message.byteCount <= longest else {
            throw SystemError(EMSGSIZE, attempted: "have \(message.byteCount) bytes acknowledged")
        }
        return try state.locked { state throws(SystemError) in
            guard state.kept.count < Delivery.limit else {
                throw SystemError(ENOBUFS, attempted: "send one more message without an answer")
            }
            state.last += 1
            let head = [sender.bigEndian, state.last.bigEndian].withUnsafeBytes { Array($0) }
            let bytes = head + message.withUnsafeBytes { Array($0) }
            state.kept.append(Message(number: state.last, token: token, bytes: bytes))
            return state.kept[state.kept.count - 1]
        }
    }

    /// The other side has it. Its token, the first time.
    func acknowledged(_ number: UInt64) -> Int? {
        state.locked { state in
            // Mostly the oldest.
            guard let index = state.kept.firstIndex(where: { $0.number == number }) else { return nil }
            return state.kept.remove(at: index).token
        }
    }

    /// Those of which nobody has said that they have arrived, in their order.
    var undelivered: [Message] { state.locked { $0.kept } }
}

/// What has come of each sender, so that a message that is sent again is handed over once. It forgets what lies more than 1,024
/// numbers back, and the sender that it has not heard of for longest, when there are too many. What the end of the process
/// loses is lost: then a message may be handed over twice.
struct SeenMessages: Sendable {
    /// Numbers that are remembered of one sender.
    static let memory = 1_024
    private let maximumSenders: Int
    private var senders: [UInt64: (numbers: Set<UInt64>, highest: UInt64, turn: Int)] = [:]
    private var turn = 0

    init(maximumSenders: Int) { self.maximumSenders = max(1, maximumSenders) }

    /// Notes a message; false when it has come before.
    mutating func isNew(_ number: UInt64, of sender: UInt64) -> Bool {
        turn += 1
        if senders[sender] == nil, senders.count >= maximumSenders,
            let oldest = senders.min(by: { $0.value.turn < $1.value.turn })
        {
            senders[oldest.key] = nil
        }
        var known = senders.removeValue(forKey: sender) ?? ([], 0, 0)
        let floor = known.highest - min(known.highest, UInt64(SeenMessages.memory))
        let isNew = number > floor && known.numbers.insert(number).inserted
        if number > known.highest {
            known.highest = number
            // Now and then, so that it costs little.
            if known.numbers.count > 2 * SeenMessages.memory {
                known.numbers = known.numbers.filter { $0 + UInt64(SeenMessages.memory) > number }
            }
        }
        known.turn = turn
        senders[sender] = known
        return isNew
    }
}
