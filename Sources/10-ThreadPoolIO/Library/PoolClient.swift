import Glibc
import Kernel

/// A client of the server: its `PoolIO`, the receive that goes round, and what has come of a line so far.
final class Client: @unchecked Sendable {
    let socket: Socket
    private let server: PoolServer
    private let receive: Line
    // Both set once, before the first callback.
    private var io: PoolIO<Socket>!
    private var limit: PoolTimer!
    // Of the receive's callbacks, which come one at a time.
    private var address = Address.any()
    private let lock = Lock()
    // Guarded by the lock.
    private var pendingSends = 0
    private var isLeaving = false
    private var end = Deadline.never
    private var isOverdue = false

    init(_ socket: Socket, _ group: PoolGroup, _ server: PoolServer) throws(SystemError) {
        self.socket = socket
        self.server = server
        receive = Line(capacity: server.options.maximumLine + 1)
        // The server has its clients for as long as something is pending.
        io = try PoolIO(socket, server.pool, group: group) { [weak self] _, operation, error, bytes in
            guard let self else { return }
            switch operation.kind {
            case .send: sendEnded()
            case .disconnect: disconnected(isReusable: error == nil)
            default: received(bytes, error)
            }
        }
        limit = PoolTimer(server.pool, group: group) { [weak self] _ in self?.closeIfOverdue() }
    }

    /// One more client on this socket.
    func start(_ address: Address) {
        self.address = address
        receive.count = 0
        lock.locked { (isLeaving, isOverdue) = (false, false) }
        try? socket.setNoDelay()
        server.report(.connected(address))
        receiveMore()
    }

    private func receiveMore() {
        mayTake(server.options.silenceLimit)
        do throws(SystemError) {
            try io.receive(receive, into: receive.free)
        } catch {
            leave(error)
        }
    }

    private func received(_ bytes: Int, _ error: SystemError?) {
        if let error { return leave(error) }
        // The client sends no more. What it has left is a line, too.
        guard bytes > 0 else {
            if receive.count > 0 { tell(receive.contents) }
            return leave(nil)
        }
        receive.count += bytes
        var rest = receive.contents
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            tell(UnsafeRawBufferPointer(rebasing: rest[..<end]))
            rest = UnsafeRawBufferPointer(rebasing: rest[(end + 1)...])
        }
        receive.keep(rest)
        // One byte more than the longest line has room; without its end it is too long. (I10.7)
        guard receive.count <= server.options.maximumLine else {
            server.report(.tooLong(from: address))
            _ = send(Array("a line has at most \(server.options.maximumLine) bytes".utf8))
            return leave(nil)
        }
        receiveMore()
    }

    private func tell(_ line: UnsafeRawBufferPointer) {
        server.add(lines: 1)
        server.report(.line(Array(line), from: address))
    }

    // MARK: Sending

    /// False when too much is pending, or the client is leaving.
    func send(_ line: [UInt8]) -> Bool {
        let isAllowed = lock.locked {
            guard !isLeaving, pendingSends < server.options.maximumPendingSends else { return false }
            pendingSends += 1
            return true
        }
        guard isAllowed else { return false }
        let operation = Line(capacity: line.count + 1)
        operation.put(line + [UInt8(ascii: "\n")])
        do throws(SystemError) {
            try io.send(operation, from: operation.contents)
            return true
        } catch {
            sendEnded()
            return false
        }
    }

    /// A send has completed, or its post has failed: a client that is leaving may have waited for it.
    private func sendEnded() {
        let isLast = lock.locked {
            pendingSends -= 1
            return isLeaving && pendingSends == 0
        }
        if isLast { disconnect() }
    }

    // MARK: Leaving

    /// Whether the receive has ended by itself or the connection has failed: by the receive's callback, once for each
    /// client. When its sends are over, the socket is disconnected.
    private func leave(_ error: SystemError?) {
        let (isDone, wasSilent) = lock.locked { () -> (Bool, Bool) in
            isLeaving = true
            return (pendingSends == 0, isOverdue)
        }
        if error != nil { socket.close() } else { mayTake(server.options.leavingLimit) }
        let silence = wasSilent ? SystemError(ETIMEDOUT, attempted: "hear from a client") : nil
        server.report(.disconnected(address, silence ?? (error?.code == ECANCELED ? nil : error)))
        if isDone { disconnect() }
    }

    /// Nothing is pending.
    private func disconnect() {
        do throws(SystemError) {
            try io.disconnect(PoolOperation(), reuse: true)
        } catch {
            disconnected(isReusable: false)
        }
    }

    private func disconnected(isReusable: Bool) {
        let wasSilent = lock.locked { () -> Bool in
            end = .never
            return isOverdue
        }
        limit.cancel()
        server.left(self, isReusable: isReusable && !wasSilent)
    }

    /// The socket will not be used again.
    func close() {
        socket.close()
        limit.close()
        io.close()
    }

    // MARK: Limits of time

    /// From now on the client may take this long, with what it does next.
    private func mayTake(_ time: Duration?) {
        guard let time else { return }
        let due = Deadline.after(time)
        lock.locked { end = due }
        // On failure the pool is closing, and so is the socket.
        try? limit.set(due: due, window: time / 16)
    }

    /// The timer's callback may be late, and meant for an earlier end, or even an earlier client: the clock decides.
    private func closeIfOverdue() {
        lock.locked {
            guard end.hasPassed else { return }
            isOverdue = true
            // What is pending comes back cancelled.
            socket.close()
        }
    }
}

/// An operation with memory of its own: a receive and the line so far, or a send.
private final class Line: PoolOperation, @unchecked Sendable {
    // As long as the operation is pending the driver keeps it, and with it the memory.
    private let memory: UnsafeMutableRawBufferPointer
    var count = 0

    init(capacity: Int) {
        memory = .allocate(byteCount: capacity, alignment: 16)
        super.init()
    }

    deinit { memory.deallocate() }

    var contents: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }
    /// Never empty: a full buffer is a line that is too long.
    var free: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: memory[count...]) }

    func put(_ bytes: [UInt8]) {
        free.copyBytes(from: bytes)
        count += bytes.count
    }

    /// What is left moves to the front.
    func keep(_ rest: UnsafeRawBufferPointer) {
        if !rest.isEmpty, rest.count < count { memmove(memory.baseAddress!, rest.baseAddress!, rest.count) }
        count = rest.count
    }
}
