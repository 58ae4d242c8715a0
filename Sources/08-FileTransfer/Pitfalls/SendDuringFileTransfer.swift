import CompletionPorts
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
            let refused = try run(driver, .refused)
            let queued = try run(driver, .queued)
            return Observation(
                happened: !refused.isWhole || !queued.isWhole || refused.answer != .busy
                    || queued.answer != nil
                    || refused.wordsAfter != 0 || queued.wordsAfter != 2,
                lines: [
                    "messages refused: \(refused.answer.map { "\($0)" } ?? "accepted"), the file is "
                        + (refused.isWhole ? "whole" : "corrupt"),
                    "messages queued: accepted, the file is \(queued.isWhole ? "whole" : "corrupt"), and "
                        + "\(queued.wordsAfter) messages came behind it",
                ])
        })

    private static func run(_ driver: DriverKind, _ policy: TransferOptions.WordsDuringFile) throws
        -> (isWhole: Bool, answer: TransferFailure?, wordsAfter: Int)
    {
        let folder = try ScratchFolder()
        let server = try ScriptedServer()
        var options = Stand.options(driver)
        options.wordsDuringFile = policy
        let hub = try TransferHub(options)
        defer { hub.stop() }
        let connection = try hub.connect(to: server.address)
        let peer = try server.accept()
        let outcome = Outcome()
        try connection.send(file: try folder.make("a", bytes: size), outcome.observer)
        var answer: TransferFailure?
        let say = { do throws(TransferError) { try connection.send(words) } catch { answer = error.failure } }
        guard let announced = try peer.hear(), announced.kind == .announce else { return (false, nil, 0) }
        // The file is under way from here on: first before, then in the middle of its bytes.
        say()
        try peer.say(TransferMessage(.agree, announced.id))
        var kinds: [TransferMessage.Kind] = []
        while let message = try peer.hear(), message.kind != .complete {
            kinds.append(message.kind)
            if kinds.count == 1 { say() }
        }
        let isWhole = kinds.allSatisfy { $0 == .piece } && peer.raw == ScratchFolder.pattern(size)
        try peer.say(TransferMessage(.verified, announced.id))
        guard case .success = outcome.wait() else { return (false, answer, 0) }
        // Whatever waited has been sent by now, and this comes behind it.
        try connection.send(Array("end".utf8))
        var wordsAfter = 0
        while let message = try peer.hear(), message.text != Array("end".utf8) {
            if message.kind == .words && message.text == words { wordsAfter += 1 }
        }
        return (isWhole, answer, wordsAfter)
    }
}
