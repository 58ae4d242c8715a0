import CKernel
import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: two contexts have the same descriptor, and each closes it when it goes.
struct BrokenOwner {
    let descriptor: Int32

    func end() { Glibc.close(descriptor) }
}

/// Two owners close one descriptor, and the second closes a stranger's.
public enum ClosedTwice {
    /// For the demo and the tests. Descriptors are the whole process's: the tests run the broken half in one of its own.
    public static let pitfall = Pitfall(
        slug: "closed-twice",
        title: "two owners close one descriptor, and the second closes a stranger's",
        broken: { _ in
            // A descriptor of its own, which no `Socket` knows.
            let number = eventfd(0, Int32(EFD_CLOEXEC))
            var waiting = try WaitingClients()
            let (one, other) = (BrokenOwner(descriptor: number), BrokenOwner(descriptor: number))
            one.end()
            let stranger = try waiting.accept(number: number)
            other.end()
            // The stranger has done nothing, and has no descriptor any more.
            let flags = fcntlFlags(number)
            withExtendedLifetime(stranger) {}
            return Observation(
                happened: flags == -EBADF,
                lines: [
                    "number \(number) was closed by one owner and given to a stranger's connection",
                    "the second owner closed it, too; the stranger's descriptor: "
                        + (flags < 0 ? SystemError.text(-flags) : "open"),
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let first = try Pair()
            let connection = try stand.table.admit(first.server)
            connection.close()
            // The socket is its descriptor's one owner; everybody else refers to the socket.
            let strangers = try (1...8).map { _ in try Pair() }
            connection.close()
            first.server.close()
            for stranger in strangers { try stand.table.admit(stranger.server) }
            for stranger in strangers { try stranger.client.say("hello") }
            var echoed = 0
            _ = stand.turns {
                for stranger in strangers {
                    if (try? stranger.client.hear(5, within: .milliseconds(1))) == "hello" { echoed += 1 }
                }
                return echoed == strangers.count
            }
            return Observation(
                happened: echoed != strangers.count || !stand.finish(),
                lines: [
                    "a connection was closed three times, with eight new ones in between",
                    "of these, answered: \(echoed)",
                ])
        })

    /// The descriptor's flags, or a negative error.
    private static func fcntlFlags(_ number: Int32) -> Int32 {
        var status = stat()
        return fstat(number, &status) == 0 ? 0 : -errno
    }
}
