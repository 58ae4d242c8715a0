import Glibc
import Kernel
import Stage

/// Clients that connect and say nothing, in a process of their own: so a server's process has descriptors, memory and
/// locked pages for its own ends only.
public final class IdleClients {
    static let argument = "--idle-child"
    private let child: Child
    /// How many are connected.
    public let count: Int

    /// Connects them, and returns when all are. They leave when this object does.
    ///
    /// - Throws: ENOENT when the chapter's program has not been built, ETIMEDOUT when not all are connected in time.
    public init(_ count: Int, to server: Address, within patience: Duration = .seconds(30))
        throws(SystemError)
    {
        guard let program = Child.product("07-locked-memory") else {
            throw SystemError(ENOENT, attempted: "find the program 07-locked-memory beside this one")
        }
        self.count = count
        child = try Child(program, [IdleClients.argument, "\(server.port)", "\(count)"])
        guard child.line(startingWith: "connected \(count)", within: patience) != nil else {
            let ending = child.wait(within: .zero)
            throw SystemError(ETIMEDOUT, attempted: "connect \(count) clients (\(ending.errors))")
        }
    }

    /// Ends them, all at once, with a reset.
    public func leave() {
        child.send(signal: SIGKILL)
        _ = child.wait(within: .seconds(10))
    }

    /// If this process was started as such a child: connects, and holds the connections until it is killed, for two
    /// minutes at most. To be called first in the program.
    public static func runIfAsked() {
        let words = CommandLine.arguments
        guard words.count == 4, words[1] == argument, let port = UInt16(words[2]), let count = Int(words[3])
        else { return }
        do {
            Resources.raiseDescriptorLimit(atLeast: count + Resources.spareDescriptors)
            let clients = try (0..<count).map { _ throws(SystemError) in
                let client = try Socket.connected(to: .loopback(port: port))
                try client.setAbortiveClose()
                return client
            }
            _ = "connected \(clients.count)\n".withCString { write(STDOUT_FILENO, $0, strlen($0)) }
            withExtendedLifetime(clients) { _ = sleep(120) }
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }
}
