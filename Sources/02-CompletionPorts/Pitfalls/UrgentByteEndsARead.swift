import CKernel
import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: is told of changes only, and takes a read that got less than it asked for as a sign that the socket
/// is empty. That saves the call that finds nothing.
struct BrokenChangeReader {
    let socket: Socket

    func read(_ wanted: Int, within patience: Duration) throws(SystemError) -> String {
        let poller = try Poller()
        try poller.add(socket.descriptor, [.readable, .ended, .onChange], token: 1)
        let request = Request(room: 64)
        let deadline = Deadline.after(patience)
        var text = ""
        while text.utf8.count < wanted, !deadline.hasPassed {
            let isReady = withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 1) {
                poller.wait($0, until: deadline) > 0
            }
            guard isReady else { continue }
            var count = request.memory.count
            while count == request.memory.count {
                count = try socket.receiveNow(into: request.memory) ?? 0
                text += request.text(count)
            }
        }
        return text
    }
}

/// A read ends at an urgent byte, however much there is behind it.
public enum UrgentByteEndsARead {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "urgent-byte-ends-a-read",
        title: "a read that stops at an urgent byte is taken for an empty socket, and the rest is never read",
        broken: { _ in
            try scenario { socket, wanted throws(SystemError) in
                try BrokenChangeReader(socket: socket).read(wanted, within: .milliseconds(300))
            }
        },
        fixed: { driver in
            try scenario { socket, wanted throws(SystemError) in
                let port = try CompletionPort.on(driver)
                try port.associate(socket, key: 1)
                let request = Request()
                var text = ""
                while text.utf8.count < wanted {
                    try socket.receive(request, into: request.memory)
                    let packet = try port.next()
                    if packet.bytes == 0 { break }
                    text += request.text(packet.bytes)
                }
                socket.close()
                port.close()
                return text
            }
        })

    private static let before = "before"
    private static let behind = "behind"

    /// Everything has come before anybody reads.
    private static func scenario(
        _ read: (Socket, _ wanted: Int) throws(SystemError) -> String
    ) throws -> Observation {
        let pair = try Pair()
        let start = pair.client.bytesAcknowledged ?? 0
        try pair.client.say(before)
        try pair.client.sayUrgently(UInt8(ascii: "!"))
        try pair.client.say(behind)
        let sent = before.utf8.count + 1 + behind.utf8.count
        guard eventually({ (pair.client.bytesAcknowledged ?? 0) - start >= sent }) else {
            throw SystemError(ETIMEDOUT, attempted: "wait until everything has come")
        }
        let text = try read(pair.server, before.utf8.count + behind.utf8.count)
        return Observation(
            happened: text != before + behind,
            lines: [
                "the client sends \"\(before)\", an urgent \"!\" and \"\(behind)\", and waits for an answer",
                "read of it: \"\(text)\"",
            ])
    }
}

extension Socket {
    /// Sends one urgent byte (`MSG_OOB`). It marks its place in the stream; whoever reads the stream does not get it.
    func sayUrgently(_ byte: UInt8) throws(SystemError) {
        var byte = byte
        guard Glibc.send(descriptor, &byte, 1, Int32(MSG_OOB | MSG_NOSIGNAL)) == 1 else {
            throw SystemError(errno, attempted: "send an urgent byte")
        }
    }
}
