import CompletionPorts
import Contexts
import Glibc
import Kernel
import LockedMemory
import Stage

/// ⚠︎ Broken on purpose: 0 bytes of a receive are the end, as chapter 04 has taught, whatever was posted.
final class BrokenEnd {
    private let port: CompletionPort
    private let wait = Overlapped()

    init(_ driver: DriverKind) throws(SystemError) { port = try CompletionPort.on(driver) }

    func serve(_ socket: Socket) throws(SystemError) -> CloseReason? {
        try port.associate(socket, key: 1)
        try socket.receive(wait, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
        let packet = try port.next()
        defer { port.close() }
        guard let reason = CloseReason(.receive, bytes: packet.bytes, error: packet.error) else { return nil }
        socket.close()
        return reason
    }
}

/// The 0 of a zero-byte receive is taken for the end of the stream.
public enum ZeroByteWakeIsNotEOF {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "zero-byte-wake-is-not-eof",
        title: "the 0 of a zero-byte receive is taken for the peer's end, and the client is dropped",
        broken: { driver in
            let pair = try Pair()
            let server = try BrokenEnd(driver)
            try pair.client.say("hello")
            let reason = try server.serve(pair.server)
            let isClosed = pair.client.isEnded()
            return Observation(
                happened: reason == .ended && isClosed,
                lines: [
                    "an idle client says its first word; the packet of the zero-byte receive has 0 bytes",
                    "the server takes that for: \(reason?.description ?? "data"); "
                        + "the client is \(isClosed ? "dropped" : "served")",
                ])
        },
        fixed: { driver in
            let server = try BudgetedServer.on(driver, .zeroByte, budget: 64)
            let (client, other) = (try server.clients(1)[0], try server.clients(1)[0])
            let answered = (0..<10).count { _ in client.isAnswered() }
            // A real end completes the same receive with the same 0, and is found by reading.
            other.close()
            let isEnded = eventually { server.hub.counters.reasons == [.ended: 1] }
            let isThere = client.isAnswered()
            let isClean = server.stop()
            return Observation(
                happened: answered != 10 || !isEnded || !isThere || !isClean,
                lines: [
                    "words answered: \(answered), each behind a packet with 0 bytes",
                    "another client leaves: \(isEnded ? "ended, by the 0 of a read" : "not noticed"); "
                        + "the first one is \(isThere ? "still there" : "gone")",
                ])
        })
}
