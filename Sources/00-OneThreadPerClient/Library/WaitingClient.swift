import Kernel

/// A client of a server that never waits in a call for it.
///
/// What the system does not take at once is kept here and goes out first; until then nothing more is read. So a
/// client that does not listen fills its own connection, and not the server's memory. (I0.5)
final class WaitingClient {
    let socket: Socket
    /// Bytes that have come and have not gone back yet. Empty for a client that keeps up.
    private var unsent: ArraySlice<UInt8> = []

    init(_ socket: Socket) { self.socket = socket }

    /// Whether this client waits for room to send, and not for bytes.
    var wantsToSend: Bool { !unsent.isEmpty }

    /// What a turn came to.
    enum Turn {
        /// So many bytes came, and went back as far as there was room.
        case moved(Int)
        /// There was nothing to read, or no room to send.
        case nothing
        /// The client has sent its last byte, and has got it back.
        case ended
    }

    /// Does for this client what can be done without waiting.
    ///
    /// - Parameter buffer: Where bytes pass through. It may be the same for all clients: nothing stays in it.
    func takeTurn(through buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Turn {
        if wantsToSend {
            let sent = try unsent.withUnsafeBufferPointer { rest throws(SystemError) in
                try socket.sendNow(UnsafeRawBufferPointer(rest))
            }
            unsent = unsent.dropFirst(sent ?? 0)
            if wantsToSend { return .nothing }
        }
        guard let count = try socket.receiveNow(into: buffer) else { return .nothing }
        if count == 0 { return .ended }
        let sent = try socket.sendNow(UnsafeRawBufferPointer(rebasing: buffer[..<count])) ?? 0
        unsent = ArraySlice(buffer[sent..<count])
        return .moved(count)
    }
}
