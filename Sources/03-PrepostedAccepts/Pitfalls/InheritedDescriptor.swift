import CKernel
import Glibc
import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: makes descriptors the way `socket` and `accept` make them when nobody asks otherwise.
struct BrokenInheritance {
    static func prepare(_ socket: Socket) {
        // Without close-on-exec: every program that this one starts gets a copy.
        _ = ck_fcntl(socket.descriptor, F_SETFD, 0)
    }
}

/// A child process inherits the sockets.
public enum InheritedDescriptor {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "inherited-descriptor",
        title:
            "a child process inherits the sockets: the port stays busy, and the client never sees the close",
        broken: { driver in try withChild(driver, prepare: BrokenInheritance.prepare) },
        fixed: { driver in try withChild(driver) { _ in } })

    /// A server with one client starts a program, and then closes everything.
    private static func withChild(_ driver: DriverKind, prepare: (Socket) -> Void) throws -> Observation {
        let taken = Gate()
        let server = try Frame(driver, slots: 1, room: 0) { _, _, _, _ in taken.open() }
        let caller = try Caller(to: server.address)
        taken.pass()
        let connection = server.slots[0].socket
        prepare(server.listener)
        prepare(connection)
        let child = try Child("/bin/sleep", ["20"])
        connection.close()
        server.stop()
        let isEnded = caller.isEnded(within: Caller.glance)
        // The child may need a moment until it has become the other program, and let go of what it does not inherit.
        let isFree = eventually(within: Caller.glance) {
            (try? Socket.listener(on: server.address))?.close() != nil
        }
        caller.socket.close()
        child.send(signal: SIGKILL)
        _ = child.wait(within: Gate.patience)
        return Observation(
            happened: !isEnded || !isFree,
            lines: [
                "the server starts another program, then closes its connection and its listener",
                "the client has \(isEnded ? "heard the end" : "heard nothing of it")",
                "the port is \(isFree ? "free" : "still in use")",
            ])
    }
}
