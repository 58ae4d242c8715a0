import Glibc
import Kernel
import Stage

/// A client as the scenarios need it: it does one thing at a time, and waits for nothing longer than it is told.
public final class Caller: Sendable {
    /// The client's end of the connection.
    public let socket: Socket

    /// How long a client waits for what should not come.
    public static let glance = Duration.milliseconds(250)

    /// Connects, and says nothing yet.
    public init(to server: Address) throws(SystemError) {
        socket = try Socket.connected(to: server)
        try socket.setNoDelay()
    }

    /// So many clients.
    public static func several(_ count: Int, to server: Address) throws(SystemError) -> [Caller] {
        var callers: [Caller] = []
        for _ in 0..<count { callers.append(try Caller(to: server)) }
        return callers
    }

    /// Sends a short text.
    public func say(_ text: String) throws(SystemError) { try socket.say(text) }

    /// Takes up to `count` bytes: fewer only at the end of the stream, or when the time is over.
    public func hear(_ count: Int, within patience: Duration = Gate.patience) throws(SystemError) -> String {
        try socket.hear(count, within: patience)
    }

    /// Says something, and whether it comes back in time.
    public func isAnswered(_ text: String, within patience: Duration = Gate.patience) throws(SystemError)
        -> Bool
    {
        do throws(SystemError) {
            try say(text)
            return try hear(text.utf8.count, within: patience) == text
        } catch {
            // A server that closes with this unread ends the connection with a reset.
            guard error.code == ECONNRESET || error.code == EPIPE else { throw error }
            return false
        }
    }

    /// Whether the server ends the connection in time; what it sent before is thrown away.
    public func isEnded(within patience: Duration = Gate.patience) -> Bool {
        socket.isEnded(within: patience)
    }

    /// Ends the connection with a reset.
    public func reset() throws(SystemError) { try socket.abort() }
}
