import CKernel
import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: to use a connection's socket again, a handler reads until nothing is left, inside its own turn.
struct BrokenDrain {
    func end(_ socket: Socket) throws(SystemError) {
        try socket.shutDownSending()
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 4_096, alignment: 16)
        defer { scratch.deallocate() }
        while let count = try socket.receiveNow(into: scratch), count > 0 {}
    }
}

/// Reading until a socket is empty takes as long as its client likes.
public enum DrainWithoutABound {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "drain-without-a-bound",
        title: "a connection is read until nothing is left, and while its client floods, the others wait",
        broken: { driver in
            try scenario(driver) { socket, _ throws(SystemError) in try BrokenDrain().end(socket) }
        },
        fixed: { driver in
            try scenario(driver) { socket, operation throws(SystemError) in
                // So many bytes at a time, and then it is the others' turn.
                try socket.disconnect(operation, reuse: true)
            }
        })

    /// A client has sent as much as its connection takes. The server ends that connection, to use its socket again, just
    /// as another client asks something. How much is thrown away before that one is served? One worker, this thread.
    private static func scenario(
        _ driver: DriverKind, end: (Socket, Overlapped) throws(SystemError) -> Void
    ) throws -> Observation {
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        let (flood, quiet) = (try Pair(), try Pair())
        try flood.server.setBufferSizes(receive: 400_000)
        try port.associate(flood.server, key: 1)
        try port.associate(quiet.server, key: 2)
        var byte: UInt8 = 0
        let (ending, request) = (Overlapped(), Overlapped())
        return try withUnsafeMutableBytes(of: &byte) { byte in
            try quiet.server.receive(request, into: byte)
            fill(flood.client)
            let sent = unread(flood.server)
            _ = try quiet.client.sendNow(.init(byte))
            try end(flood.server, ending)
            var key: UInt = 0
            while key != 2 {
                guard case .completed(let packet) = port.dequeue(timeout: Gate.patience) else {
                    throw SystemError(ETIMEDOUT, attempted: "wait for the question")
                }
                key = packet.key
            }
            let left = unread(flood.server)
            flood.client.close()
            flood.server.close()
            quiet.server.close()
            port.close()
            return Observation(
                happened: left == 0,
                lines: [
                    "one client has sent all that its connection takes, another asks something",
                    left == 0
                        ? "thrown away before the question was heard: everything"
                        : "thrown away before the question was heard: \((sent - left) * 100 / max(1, sent)) %",
                ])
        }
    }

    /// Sends until the connection takes no more, and what was sent has come as far as it can.
    private static func fill(_ client: Socket) {
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
        defer { bytes.deallocate() }
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        var rounds = 0
        while rounds < 20 {
            if (try? client.sendNow(.init(bytes))) ?? nil != nil {
                rounds = 0
            } else {
                rounds += 1
                usleep(1_000)
            }
        }
    }

    /// Bytes that have come and have not been read.
    private static func unread(_ socket: Socket) -> Int {
        var count: Int32 = 0
        _ = ck_ioctl_int(socket.descriptor, UInt(FIONREAD), &count)
        return Int(count)
    }
}
