import CompletionPorts
import Glibc
import Kernel
import PrepostedAccepts
import Stage

/// An accept of the wrong servers: its socket, and room for first data and two addresses.
final class Slot: Overlapped, @unchecked Sendable {
    let room: Int
    let memory: UnsafeMutableRawBufferPointer
    var socket = Socket()

    init(room: Int = 64) {
        self.room = room
        memory = .allocate(byteCount: Acceptance.blockSize(room), alignment: 16)
    }

    deinit { memory.deallocate() }

    func post(on listener: Socket) throws(SystemError) {
        socket = Socket()
        try listener.accept(self, socket, into: memory, receiveLength: room)
    }

    func firstData(_ bytes: Int) -> [UInt8] { Array(memory[..<min(bytes, room)]) }
}

/// What the wrong servers share and have right: a port with one worker, a listener, and the echo of what is received.
/// What becomes of an accept is each one's own.
final class Frame: @unchecked Sendable {
    typealias Completed = @Sendable (Frame, Slot, Int, SystemError?) -> Void

    let port: CompletionPort
    let listener: Socket
    let address: Address
    let slots: [Slot]
    private var workers: WorkerGroup?
    private let lock = Lock()
    private var talks: [Talk] = []  // under the lock

    init(_ driver: DriverKind, slots count: Int, room: Int = 64, completed: @escaping Completed) throws {
        var options = CompletionPort.Options()
        options.driver = driver
        port = try CompletionPort(concurrency: 1, options: options)
        listener = try Socket.listener(on: .loopback())
        address = try listener.localAddress
        slots = (0..<count).map { _ in Slot(room: room) }
        try port.associate(listener, key: 0)
        workers = try WorkerGroup(1, on: port) { [unowned self] packet, error in
            if let slot = packet.operation as? Slot {
                completed(self, slot, packet.bytes, error)
            } else if let talk = packet.operation as? Talk {
                try talk.goOn(packet.bytes, error)
            }
        }
        for slot in slots { try slot.post(on: listener) }
    }

    /// Talks with a client from now on: echoes `first`, and whatever comes after it.
    func serve(_ socket: Socket, first: [UInt8] = []) {
        let talk = Talk(socket)
        lock.locked { talks.append(talk) }
        try? port.associate(socket, key: 1)
        try? talk.begin(first)
    }

    func stop() {
        listener.close()
        for talk in lock.locked({ talks }) { talk.socket.close() }
        workers?.stop()
        workers = nil
    }
}

/// A connection of the wrong servers, and the one operation that goes round on it.
private final class Talk: Overlapped, @unchecked Sendable {
    let socket: Socket
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)

    init(_ socket: Socket) { self.socket = socket }
    deinit { memory.deallocate() }

    func begin(_ first: [UInt8]) throws(SystemError) {
        guard !first.isEmpty else { return try socket.receive(self, into: memory) }
        memory.copyBytes(from: first)
        try socket.send(self, from: .init(rebasing: memory[..<first.count]))
    }

    func goOn(_ bytes: Int, _ error: SystemError?) throws(SystemError) {
        guard error == nil, kind == .send || bytes > 0 else { return socket.close() }
        if kind == .send {
            try socket.receive(self, into: memory)
        } else {
            try socket.send(self, from: .init(rebasing: memory[..<bytes]))
        }
    }
}

extension PrepostedServer {
    /// The chapter's server on one driver, with one worker and a small pool.
    static func small(
        _ driver: DriverKind, accepts: Int = 10, most: Int? = nil, change: (inout Options) -> Void = { _ in }
    ) throws(SystemError) -> PrepostedServer {
        var options = Options()
        options.port.driver = driver
        options.pool.initial = accepts
        options.pool.lowWater = 0
        options.pool.maximum = most ?? accepts
        options.pool.lookInterval = .milliseconds(50)
        change(&options)
        return try PrepostedServer(options: options)
    }
}

extension Sequence where Element == Bool {
    /// How many are true.
    var yes: Int { reduce(0) { $0 + ($1 ? 1 : 0) } }
}
