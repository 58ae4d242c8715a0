import Kernel

/// An accept, with all that it needs: the socket that it will fill, and one block of memory for the first data and
/// both addresses.
///
/// A pool makes it, posts it, and posts it again with another socket. Its fields are the pool's.
public final class Acceptance: Overlapped, @unchecked Sendable {
    /// Where the connection will be: fresh when the accept is posted.
    var socket = Socket()
    /// Bytes of first data that there is room for.
    public let receiveLength: Int
    // The driver's while the accept is pending, and freed with it: a pending operation is kept alive.
    let memory: UnsafeMutableRawBufferPointer
    /// Its place among those that are pending; -1 when it is not.
    var place = -1
    /// In which order it was posted.
    var ticket = 0

    /// An accept that was never posted.
    public init(receiveLength: Int) {
        self.receiveLength = receiveLength
        memory = .allocate(byteCount: Acceptance.blockSize(receiveLength), alignment: 16)
    }

    deinit { memory.deallocate() }

    /// The size of the block: first data, and two addresses behind it. It is computed here and nowhere else (I3.6).
    public static func blockSize(_ receiveLength: Int) -> Int { receiveLength + 2 * Address.capacity }

    /// Posts it, for a client that `socket` will belong to.
    func post(on listener: Socket) throws(SystemError) {
        try listener.accept(self, socket, into: memory, receiveLength: receiveLength)
    }

    /// What the block says, when the accept has completed.
    var result: AcceptBuffer { AcceptBuffer(UnsafeRawBufferPointer(memory), receiveLength: receiveLength) }
}

/// A client that has come: its connection, both addresses, and the first bytes that it sent.
public struct Arrival {
    /// The connection. It knows its listener already.
    public let client: AcceptedSocket
    /// The address that the client connected to.
    public let local: Address?
    /// The client's own address.
    public let remote: Address?
    /// What the client said first; empty when the pool asks for none. It lies in the accept's block, which is posted
    /// again when the handler returns: copy what is to stay (I3.5).
    public let firstData: UnsafeRawBufferPointer
}
