import Glibc
import Kernel

/// A client of the server: its `PoolIO`, the receive that goes round, and what has come of a line so far.
final class Client: @unchecked Sendable {
    let socket: Socket
    private let room: Room
    // Set once, before the first callback.
    private var io: PoolIO<Socket>!
    private let receive: LineBuffer
    // Of the receive's callbacks, which come one at a time.
    private var address = Address.any()
    private let lock = Lock()
    // Guarded by the lock.
    private var pendingSends = 0
    private var isLeaving = false

    init(_ socket: Socket, _ pool: ThreadPool, _ group: PoolGroup, _ room: Room) throws(SystemError) {
        self.socket = socket
        self.room = room
        receive = LineBuffer(capacity: room.options.maximumLine + 1)
        // The room has its clients for as long as something is pending.
        io = try PoolIO(socket, pool, group: group) { [weak self] _, operation, error, bytes in
            guard let self else { return }
            switch operation {
            case let operation as SentLine: sent(operation, error)
            case _ where operation.kind == .disconnect: room.left(self, isReusable: error == nil)
            default: received(bytes, error)
            }
        }
    }

    /// One more client on this socket.
    func start(_ address: Address) {
        self.address = address
        receive.count = 0
        lock.locked { isLeaving = false }
        try? socket.setNoDelay()
        room.report(.connected(address))
        receiveMore()
    }

    private func receiveMore() {
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
        guard receive.count <= room.options.maximumLine else {
            room.report(.tooLong(from: address))
            _ = send(Array("a line has at most \(room.options.maximumLine) bytes".utf8))
            return leave(nil)
        }
        receiveMore()
    }

    private func tell(_ line: UnsafeRawBufferPointer) {
        room.add(lines: 1)
        room.report(.line(Array(line), from: address))
    }

    // MARK: Sending

    /// False when too much is pending, or the client is leaving.
    func send(_ line: [UInt8]) -> Bool {
        let isAllowed = lock.locked {
            guard !isLeaving, pendingSends < room.options.maximumPendingSends else { return false }
            pendingSends += 1
            return true
        }
        guard isAllowed else { return false }
        let operation = SentLine(line)
        do throws(SystemError) {
            try io.send(operation, from: UnsafeRawBufferPointer(operation.memory))
            return true
        } catch {
            lock.locked { pendingSends -= 1 }
            return false
        }
    }

    private func sent(_ operation: SentLine, _ error: SystemError?) {
        let isLast = lock.locked {
            pendingSends -= 1
            return isLeaving && pendingSends == 0
        }
        if isLast { disconnect() }
    }

    // MARK: Leaving

    /// By the receive's callback, once for each client: when its sends are over, the socket is disconnected.
    private func leave(_ error: SystemError?) {
        room.report(.disconnected(address, error?.code == ECANCELED ? nil : error))
        if error != nil { socket.close() }
        let isDone = lock.locked {
            isLeaving = true
            return pendingSends == 0
        }
        if isDone { disconnect() }
    }

    /// Nothing is pending.
    private func disconnect() {
        do throws(SystemError) {
            try io.disconnect(PoolOperation(), reuse: true)
        } catch {
            room.left(self, isReusable: false)
        }
    }
}

/// The receive of a client, with the bytes of the line so far.
private final class LineBuffer: PoolOperation, @unchecked Sendable {
    // This operation's own: as long as it is pending the driver keeps it.
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

    /// What is left moves to the front.
    func keep(_ rest: UnsafeRawBufferPointer) {
        if !rest.isEmpty, rest.count < count { memmove(memory.baseAddress!, rest.baseAddress!, rest.count) }
        count = rest.count
    }
}

/// A send, with its own copy of the line.
private final class SentLine: PoolOperation, @unchecked Sendable {
    let memory: UnsafeMutableRawBufferPointer

    init(_ line: [UInt8]) {
        memory = .allocate(byteCount: line.count + 1, alignment: 16)
        memory.copyBytes(from: line)
        memory[line.count] = UInt8(ascii: "\n")
        super.init()
    }

    deinit { memory.deallocate() }
}
