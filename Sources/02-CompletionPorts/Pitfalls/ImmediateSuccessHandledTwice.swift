import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: finds the operation complete right after posting it, handles it, and forgets the packet.
struct BrokenEagerReader {
    func receive(_ request: Request, on socket: Socket, handle: (Int) -> Void) throws(SystemError) {
        try socket.receive(request, into: request.memory)
        if request.wait(until: .after(Gate.patience)) { handle(request.bytes) }
    }
}

/// An operation that completes at once is handled by its poster, and then its packet arrives.
public enum ImmediateSuccessHandledTwice {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "immediate-success-handled-twice",
        title: "an operation completes at once, its poster handles the result, and the packet arrives too",
        broken: { driver in
            try scenario(driver) { request, socket, handle throws(SystemError) in
                try BrokenEagerReader().receive(request, on: socket, handle: handle)
            }
        },
        fixed: { driver in
            try scenario(driver) { request, socket, _ throws(SystemError) in
                // The post returns nothing to handle: complete or pending, the packet tells.
                try socket.receive(request, into: request.memory)
            }
        })

    /// Ten coins have arrived before the receive is posted. A worker books them, and so may the poster.
    ///
    /// A byte before them is received first: then the driver knows that there is more, and the receive that matters can
    /// complete inside its post.
    private static func scenario(
        _ driver: DriverKind,
        receive: (Request, Socket, (Int) -> Void) throws(SystemError) -> Void
    ) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        let account = Counter()
        let booked = Gate()
        let posted = Gate()
        let first = Request(room: 1)
        let firstIsHandled = Gate()
        let workers = try WorkerGroup(1, on: port) { packet, _ in
            if packet.operation === first { return firstIsHandled.open() }
            // The worker holds the packet in its hands until the poster has done what it does.
            posted.pass()
            account.add(packet.bytes)
            booked.open()
        }
        try pair.client.say("!10 coins..")
        try pair.server.receive(first, into: first.memory)
        firstIsHandled.pass()
        try receive(Request(), pair.server) { account.add($0) }
        posted.open()
        let hasPacket = booked.pass()
        workers.stop()
        pair.server.close()
        return Observation(
            happened: account.value != 10,
            lines: [
                "bytes sent: 10; their packet came: \(hasPacket ? "yes" : "no")",
                "bytes booked: \(account.value)",
            ])
    }
}
