import Kernel
import Synchronization
import Timeline

/// One thread that is told what has been done.
///
/// No socket is asked, nothing is tried. A receive is posted with its buffer; the system fills it and says so. A look
/// ahead: chapter 01 takes operations apart, chapter 02 builds the port.
public final class CompletionServer: EchoServer, @unchecked Sendable {
    private let finished: FinishedOperations
    // What follows is the thread's alone.
    private let incoming = Incoming()
    private var echoes: [ObjectIdentifier: Echo] = [:]
    private var pending = 0
    private var acceptAgain = Deadline.now

    /// Listens and serves from now on. - Throws: as listening does; EAGAIN when there is no thread.
    public init(
        on address: Address = .loopback(), limits: Limits = Limits(), driver: DriverKind = .standard
    ) throws(SystemError) {
        finished = try FinishedOperations(driver: driver)
        try super.init(listeningOn: address, limits)
        try finished.adopt(listener)
        try start("completion")
    }

    override func run() {
        while !isStopping.load(ordering: .acquiring) {
            if acceptAgain.hasPassed { postAccept() }
            for operation in finished.wait(until: acceptAgain) { handle(operation) }
        }
        // Closing completes what is pending. The buffers are the system's until each packet has come.
        listener.close()
        for echo in echoes.values { echo.socket.close() }
        while pending > 0 {
            for operation in finished.wait() { handle(operation) }
        }
    }

    /// What is done says what is next: a receive is followed by a send of the same bytes, a send by a receive.
    private func handle(_ operation: Overlapped) {
        pending -= 1
        switch (operation, operation.kind) {
        case (let echo as Echo, .receive) where operation.error == nil && operation.bytes > 0:
            // The bytes are in the buffer. There is nothing to ask for and nothing to try. (I0.6)
            post(echo, "send") { () throws(SystemError) in
                try echo.socket.send(echo, from: UnsafeRawBufferPointer(rebasing: echo.buffer[..<echo.bytes]))
            }
        case (let echo as Echo, .send) where operation.error == nil:
            ledger.note { $0.bytesEchoed += echo.bytes }
            postReceive(echo)
        case (let echo as Echo, _):
            end(echo, failed: operation.error != nil)
        default:
            begin()
        }
        Recorder.mark(.handled, operation.identity)
    }

    private func postReceive(_ echo: Echo) {
        post(echo, "receive") { () throws(SystemError) in
            try echo.socket.receive(echo, into: echo.buffer)
        }
    }

    private func post(_ echo: Echo, _ name: String, _ call: () throws(SystemError) -> Void) {
        do throws(SystemError) {
            Recorder.label(echo.identity, "\(name) \(echo.number)")
            try call()
            pending += 1
        } catch {
            end(echo, failed: true)
        }
    }

    private func end(_ echo: Echo, failed: Bool) {
        echoes[ObjectIdentifier(echo)] = nil
        echo.socket.close()
        // Being closed by `stop` is no failure of the client's.
        ledger.dismiss(failed: failed && !isStopping.load(ordering: .relaxed))
    }

    private func postAccept() {
        acceptAgain = .never
        do throws(SystemError) {
            incoming.socket = Socket()
            Recorder.label(incoming.identity, "accept")
            try listener.accept(incoming, incoming.socket, into: incoming.buffer, receiveLength: 0)
            pending += 1
        } catch {
            acceptAgain = .after(limits.acceptPause)
        }
    }

    override func wake() { finished.wake() }

    /// The accept is done: with a connection, or without.
    private func begin() {
        guard incoming.error == nil else {
            noteFailedAccept()
            acceptAgain = .after(limits.acceptPause)
            return
        }
        let socket = incoming.socket
        guard !isStopping.load(ordering: .acquiring) else { return socket.close() }
        acceptAgain = .now
        guard ledger.admit(limit: limits.clients) else { return socket.refuse() }
        let echo = Echo(socket, limits.receiveSize, number: ledger.counters.accepted)
        echoes[ObjectIdentifier(echo)] = echo
        do throws(SystemError) { try finished.adopt(socket) } catch { return end(echo, failed: true) }
        postReceive(echo)
    }
}

/// A client, and the one operation that is ever pending for it.
private final class Echo: Overlapped, @unchecked Sendable {
    let socket: Socket
    /// For the timeline.
    let number: Int
    /// The system's from each post to its packet, so it lives as long as the operation. A receive that waits needs
    /// memory to wait with: that is the price, and chapter 07 is about it.
    let buffer: UnsafeMutableRawBufferPointer

    init(_ socket: Socket, _ size: Int, number: Int) {
        self.socket = socket
        self.number = number
        buffer = .allocate(byteCount: size, alignment: 16)
    }

    deinit { buffer.deallocate() }
}

/// The accept, and the connection that it is to fill.
private final class Incoming: Overlapped, @unchecked Sendable {
    var socket = Socket()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * Address.capacity, alignment: 16)

    deinit { buffer.deallocate() }
}
