import CompletionPorts
import Glibc
import Kernel
import PrepostedAccepts
import Stage

/// ⚠︎ Broken on purpose: the room for first data stands in two places, and was changed in one.
struct BrokenAddressReader {
    static let roomWhenPosted = 32
    static let roomWhenRead = 96

    static func read(_ block: UnsafeMutableRawBufferPointer, _ bytes: Int) -> (Address?, String) {
        let result = AcceptBuffer(.init(block), receiveLength: roomWhenRead)
        return (result.remote, String(decoding: result.firstData(bytes), as: UTF8.self))
    }
}

/// The address areas lie elsewhere for the reader than for the accept.
public enum AcceptAddressBlock {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "accept-address-block",
        title:
            "accept and reader disagree about where the addresses lie: a client gets another one's address",
        broken: { driver in
            try twoClients(driver, room: BrokenAddressReader.roomWhenPosted, read: BrokenAddressReader.read)
        },
        fixed: { driver in
            // One number, with which the accept is posted and its block is read.
            let room = 32
            var seen = try twoClients(driver, room: room) { block, bytes in
                let result = AcceptBuffer(.init(block), receiveLength: room)
                return (result.remote, String(decoding: result.firstData(bytes), as: UTF8.self))
            }
            let right = try throughPool(driver, room: room)
            seen.happened = seen.happened || right < clients
            seen.lines.append("clients of a pool whose own addresses came with them: \(right) of \(clients)")
            return seen
        })

    static let clients = 3

    /// The pool posts its accepts and reads their blocks with one number, too. Says for how many clients it was right.
    private static func throughPool(_ driver: DriverKind, room: Int) throws -> Int {
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        let listener = try Socket.listener(on: .loopback())
        let server = try listener.localAddress
        try port.associate(listener, key: 0)
        var limits = AcceptPool.Options()
        (limits.initial, limits.lowWater, limits.maximum, limits.receiveLength) = (1, 0, 1, room)
        let arrivals = Arrivals()
        let pool = try AcceptPool(on: listener, options: limits) { arrivals.add($0) }
        let workers = try WorkerGroup(1, on: port) { pool.handle($0, $1) }
        try pool.start()
        defer {
            pool.stop()
            workers.stop()
        }
        var right = 0
        for number in 1...clients {
            let caller = try Caller(to: server)
            let words = "client \(number)"
            try caller.say(words)
            guard caller.isEnded(), let last = arrivals.last else { continue }
            let own = try caller.socket.localAddress
            if last.remote == own, last.local == server, last.words == words { right += 1 }
        }
        return right
    }

    /// Notes what comes with a client, and dismisses it.
    private final class Arrivals: @unchecked Sendable {
        private let lock = Lock()
        private var newest: (local: Address?, remote: Address?, words: String)?  // under the lock

        var last: (local: Address?, remote: Address?, words: String)? { lock.locked { newest } }

        func add(_ arrival: Arrival) {
            let words = String(decoding: arrival.firstData, as: UTF8.self)
            lock.locked { newest = (arrival.local, arrival.remote, words) }
            arrival.client.socket.close()
        }
    }

    /// One block of memory serves two accepts in turn: with the old room, and with the present one.
    private static func twoClients(
        _ driver: DriverKind, room: Int, read: (UnsafeMutableRawBufferPointer, Int) -> (Address?, String)
    ) throws -> Observation {
        let block = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Acceptance.blockSize(BrokenAddressReader.roomWhenRead), alignment: 16)
        defer { block.deallocate() }
        let server = try Frame(driver, slots: 0) { _, _, _, _ in }
        defer { server.stop() }
        func accept(room: Int) throws -> (Caller, Int) {
            let accept = Overlapped()
            let socket = Socket()
            try server.listener.accept(accept, socket, into: block, receiveLength: room)
            let caller = try Caller(to: server.address)
            try caller.say("who am I?")
            _ = eventually { !accept.isPending }
            socket.close()
            return (caller, accept.bytes)
        }
        let (former, _) = try accept(room: BrokenAddressReader.roomWhenRead)
        let (present, bytes) = try accept(room: room)
        let (address, words) = read(block, bytes)
        let (right, wrong) = (try present.socket.localAddress, try former.socket.localAddress)
        var refusal: SystemError?
        do throws(SystemError) {
            try server.listener.accept(
                Overlapped(), Socket(), into: .init(rebasing: block[..<(room + Address.capacity)]),
                receiveLength: room)
        } catch {
            refusal = error
        }
        present.socket.close()
        former.socket.close()
        let whose = address == right ? "its own" : address == wrong ? "the former client's" : "nobody's"
        return Observation(
            happened: address != right || refusal?.code != EFAULT,
            lines: [
                "the second client said \"\(words)\", and its address is \(whose)",
                "a block with room for one address only: \(refusal?.description ?? "accepted")",
            ])
    }
}
