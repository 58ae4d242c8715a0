import FileTransfer
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: receives files, and believes whatever it is told: the name, the size, that the disk has room, and
/// that every transfer comes to its end.
public final class BrokenReceiver {
    private let peer: ScriptedPeer
    private let folder: String
    /// The file that is being received. Nobody closes it but `complete`.
    private(set) var file: File?
    private var written = 0
    private var rawTaken = 0
    private var announcedRaw = 0
    private(set) var refusals = 0

    /// Receives from a peer into a folder.
    public init(_ peer: ScriptedPeer, into folder: String) {
        self.peer = peer
        self.folder = folder
    }

    /// Handles messages until the sender has nothing more to say.
    public func run() throws {
        while let message = try peer.hear() {
            switch message.kind {
            case .announce where file != nil:
                // In file mode already.
                refusals += 1
                try peer.say(TransferMessage(.refuse, message.id, .busy))
            case .announce:
                let name = String(decoding: message.text, as: UTF8.self)
                file = try File(folder + "/" + name, for: .writing)
                written = 0
                try peer.say(TransferMessage(.agree, message.id))
            case .piece:
                // The bytes of the piece before are here by now.
                write()
                announcedRaw = Int(message.count)
            case .complete:
                write()
                file?.close()
                file = nil
                try peer.say(TransferMessage(.verified, message.id))
            case .abort: write()
            default: break
            }
        }
        write()
    }

    private func write() {
        let bytes = Array(peer.raw[rawTaken..<rawTaken + announcedRaw])
        rawTaken += announcedRaw
        announcedRaw = 0
        guard let file else { return }
        // Whether it was written, nobody asks.
        written += bytes.withUnsafeBytes { pwrite(file.descriptor, $0.baseAddress, $0.count, written) }
    }
}

/// A sender that says what a scenario wants it to say, while another thread receives.
func withBrokenReceiver(_ folder: String, _ script: (ScriptedPeer) throws -> Void) throws -> BrokenReceiver {
    let pair = try Pair()
    let receiver = BrokenReceiver(ScriptedPeer(pair.server), into: folder)
    let sender = ScriptedPeer(pair.client)
    try script(sender)
    // Everything that the sender says fits into the system's buffers: the receiver reads it afterwards.
    try pair.client.shutDownSending()
    try receiver.run()
    return receiver
}

extension ScriptedPeer {
    /// A file with everything that belongs to it, without waiting for answers. `count` is what really comes.
    public func push(_ id: UInt32, _ name: String, size: Int, count: Int, completes: Bool = true) throws {
        try say(TransferMessage(.announce, id, value: UInt64(size), text: name.utf8))
        let bytes = ScratchFolder.pattern(count)
        try say(TransferMessage(.piece, id, count: UInt32(count)))
        try send(bytes)
        if completes { try say(TransferMessage(.complete, id, value: bytes.sum)) }
    }
}

extension [UInt8] {
    /// The checksum of these bytes.
    public var sum: UInt64 {
        var sum = Checksum()
        withUnsafeBytes { sum.add($0) }
        return sum.value
    }
}
