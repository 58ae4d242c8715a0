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
            return try twoClients(driver, room: room) { block, bytes in
                let result = AcceptBuffer(.init(block), receiveLength: room)
                return (result.remote, String(decoding: result.firstData(bytes), as: UTF8.self))
            }
        })

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
        let refusal: String
        do throws(SystemError) {
            try server.listener.accept(
                Overlapped(), Socket(), into: .init(rebasing: block[..<(room + Address.capacity)]),
                receiveLength: room)
            refusal = "accepted"
        } catch {
            refusal = "\(error)"
        }
        present.socket.close()
        former.socket.close()
        let whose = address == right ? "its own" : address == wrong ? "the former client's" : "nobody's"
        return Observation(
            happened: address != right,
            lines: [
                "the second client said \"\(words)\", and its address is \(whose)",
                "a block with room for one address only: \(refusal)",
            ])
    }
}
