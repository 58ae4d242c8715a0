import Glibc
import Kernel

/// The name by which another terminal finds the server program of a port: `stop PORT`. Document 001 has a named event for it.
///
/// It is an abstract Unix socket: a name without a file, which is gone with its program, however that ends. No connection is ever
/// accepted. One that waits is enough: the system tells whose the other end is, and the program's end is the connection's.
struct ServingName {
    /// The port of the server's own address.
    let port: UInt16

    /// Takes the name, for as long as this process lives.
    ///
    /// - Throws: EADDRINUSE when another program has it.
    func take() throws(SystemError) {
        let descriptor = try makeSocket()
        guard withAddress({ bind(descriptor, $0, $1) }) == 0, listen(descriptor, 64) == 0 else {
            let error = SystemError(errno, attempted: "be found by 'stop \(port)'")
            close(descriptor)
            throw error
        }
    }

    /// Asks the program that has the name to end in good order, and waits until it has.
    ///
    /// - Returns: Its process.
    /// - Throws: One line: there is none, it is another user's, or it takes longer than that.
    func stop(within limit: Duration) throws -> pid_t {
        let descriptor = try makeSocket()
        defer { close(descriptor) }
        guard withAddress({ connect(descriptor, $0, $1) }) == 0 else {
            guard errno == ECONNREFUSED else { throw SystemError(errno, attempted: "find the server") }
            throw BadCommand(
                "no server of this program listens at port \(port); '--serve \(port)' keeps one up")
        }
        var peer: (process: pid_t, user: uid_t, group: gid_t) = (0, 0, 0)
        var size = socklen_t(MemoryLayout.size(ofValue: peer))
        guard getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0, peer.process > 0 else {
            throw BadCommand("the server at port \(port) is in another container; stop it there")
        }
        // One that has ended meanwhile is no error.
        if kill(peer.process, SIGTERM) != 0, errno == EPERM {
            throw BadCommand(
                "the server at port \(port), process \(peer.process), is another user's; stop it as that user"
            )
        }
        let deadline = Deadline.after(limit)
        var wish = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&wish, 1, Int32(min(deadline.remaining / 1_000_000 + 1, 1_000))) <= 0 {
            if deadline.hasPassed {
                throw BadCommand(
                    "the server at port \(port) was asked to stop, and has not ended within "
                        + "\(Int(limit / .milliseconds(1))) ms; 'kill -KILL \(peer.process)' ends it at once")
            }
        }
        return peer.process
    }

    private func makeSocket() throws(SystemError) -> Int32 {
        // A name that very many are waiting at is refused, not waited for.
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw SystemError(errno, attempted: "make a socket for a name") }
        return descriptor
    }

    private func withAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let name = Array("11-server-and-client:\(port)".utf8)
        // A first byte of 0 makes it abstract.
        withUnsafeMutableBytes(of: &address.sun_path) { path in
            for (place, byte) in name.enumerated() { path[1 + place] = byte }
        }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + 1 + name.count)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }
}
