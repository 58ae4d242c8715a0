import CompletionPorts
import Contexts
import FileTransfer
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: sends a file in pieces, and whatever else anybody wants to send, as it comes.
final class BrokenFileSender {
    private let own: OwnPort
    private let socket: Socket
    private let file: File
    private let operation = Overlapped()

    init(_ driver: DriverKind, _ socket: Socket, _ path: String) throws(SystemError) {
        own = try OwnPort(driver)
        self.socket = socket
        file = try File(path)
        try own.port.associate(socket, key: 0)
    }

    func sendPiece(from offset: Int, _ count: Int) throws(SystemError) {
        operation.offset = Int64(offset)
        try socket.transmit(operation, file, length: count)
        _ = try own.next()
    }

    func send(_ words: [UInt8]) throws(SystemError) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: words.count, alignment: 1)
        memory.copyBytes(from: words)
        defer { memory.deallocate() }
        try socket.send(operation, from: UnsafeRawBufferPointer(memory))
        _ = try own.next()
    }
}

/// Another send goes out while a file is being transmitted.
public enum SendDuringFileTransfer {
    private static let size = 100_000
    private static let words = Array("how are you?".utf8)

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "send-during-file-transfer",
        title: "another send goes out while a file is on its way, and lands in the middle of the file",
        broken: { driver in
            let folder = try ScratchFolder()
            let pair = try Pair()
            let sender = try BrokenFileSender(driver, pair.server, try folder.make("a", bytes: size))
            try sender.sendPiece(from: 0, size / 2)
            // Some other part of the program has something to say.
            try sender.send(words)
            try sender.sendPiece(from: size / 2, size / 2)
            let heard = try pair.client.hearBytes(size)
            let sent = ScratchFolder.pattern(size)
            let different = zip(heard, sent).enumerated().first { $0.element.0 != $0.element.1 }?.offset
            return Observation(
                happened: heard.count == size && heard != sent,
                lines: [
                    "\(readable(size)) bytes of a file were sent, and \"how are you?\" from elsewhere",
                    "the receiver took the \(readable(heard.count)) bytes that were announced: as many as the file has",
                    "they differ from byte \(different.map { readable($0) } ?? "?") on, and nothing says so",
                ])
        },
        fixed: { driver in
            let refused = try run(driver, refuses: true)
            let between = try run(driver, refuses: false)
            return Observation(
                happened: !refused.isWhole || !between.isWhole || refused.code != EBUSY || between.code != nil
                    || refused.between != 0 || between.between != 2,
                lines: [
                    "messages between pieces: \(between.between) came while the file was on its way, and it is "
                        + (between.isWhole ? "whole" : "corrupt"),
                    "messages refused meanwhile: \(refused.code.map { SystemError.text($0) } ?? "accepted"), the file is "
                        + (refused.isWhole ? "whole" : "corrupt"),
                ])
        })

    private static func run(_ driver: DriverKind, refuses: Bool) throws
        -> (isWhole: Bool, code: Int32?, between: Int)
    {
        let folder = try ScratchFolder()
        let server = try ScriptedServer()
        var options = Stand.options(driver)
        options.refusesMessages = refuses
        let hub = try FileSide(options)
        defer { hub.stop() }
        let connection = try hub.connect(to: server.address)
        let peer = try server.accept()
        let outcome = Outcome()
        let refusal = Guarded<Int32?>(nil)
        let say = { @Sendable in
            do throws(SystemError) { try connection.say(words) } catch { refusal.locked { $0 = error.code } }
        }
        // Called when the first piece has been sent, and before the last one is.
        var observer = outcome.observer
        let isFirst = Guarded(true)
        observer.progress = { _ in
            let isFirst = isFirst.locked { isFirst in
                defer { isFirst = false }
                return isFirst
            }
            if isFirst { say() }
        }
        try connection.send(file: try folder.make("a", bytes: size), observer)
        guard let announced = try peer.hear(), announced.kind == .announce else { return (false, nil, 0) }
        // The file is under way from here on: first before its bytes, then in their middle.
        say()
        try peer.say(TransferMessage(.agree, announced.id))
        var between = 0
        hearing: while let next = try peer.hearAny() {
            switch next {
            case .words(let heard): if heard == words { between += 1 }
            case .file(let message) where message.kind == .piece: break
            case .file: break hearing
            }
        }
        let isWhole = peer.raw == ScratchFolder.pattern(size)
        try peer.say(TransferMessage(.verified, announced.id))
        guard case .success = outcome.wait() else { return (false, nil, between) }
        // The article's restriction ends with the file.
        try connection.say(words)
        return (try isWhole && peer.hearWords() == words, refusal.locked { $0 }, between)
    }
}
