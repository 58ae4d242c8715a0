import FileTransfer
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: enters file mode when it announces a file, and leaves it when the answer has come.
final class BrokenHandshake {
    private let peer: ScriptedPeer
    private(set) var isInFileMode = false

    init(_ peer: ScriptedPeer) { self.peer = peer }

    func announce(_ name: String) throws {
        isInFileMode = true
        try peer.say(TransferMessage(.announce, 1, value: 1_000, text: name.utf8))
    }

    func send(_ words: String) throws -> Bool {
        if isInFileMode { return false }
        try peer.say(words)
        return true
    }

    /// Goes on with whatever has come; it is all that this object ever does about the announcement.
    func look() throws {
        var wish = pollfd(fd: peer.socket.descriptor, events: Int16(POLLIN), revents: 0)
        if poll(&wish, 1, 20) > 0, try peer.hear()?.kind == .agree { isInFileMode = false }
    }
}

/// The other side never answers the announcement.
public enum HandshakeNeverAnswered {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "handshake-never-answered",
        title: "nobody answers the announcement, and the sender stays in file mode for ever",
        broken: { _ in
            let pair = try Pair()
            let sender = BrokenHandshake(ScriptedPeer(pair.server))
            try sender.announce("a")
            var refused = 0
            for _ in 0..<20 {
                try sender.look()
                if try !sender.send("hello") { refused += 1 }
            }
            withExtendedLifetime(pair) {}
            return Observation(
                happened: sender.isInFileMode && refused == 20,
                lines: [
                    "announced, and no answer; 20 messages in 0.4 s were refused: \(refused)",
                    "in file mode still; nothing but an answer would end it",
                ])
        },
        fixed: { driver in
            let folder = try ScratchFolder()
            let server = try ScriptedServer()
            var options = Stand.options(driver)
            options.limits = TransferLimits(answer: .milliseconds(50))
            options.refusesMessages = true
            let hub = try FileSide(options)
            defer { hub.stop() }
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            let outcome = Outcome()
            try connection.send(file: try folder.make("a", bytes: 1_000), outcome.observer)
            let announced = try peer.hear()
            let failure = outcome.wait()?.failure
            let told = try peer.hear()
            try connection.say(Array("hello".utf8))
            let words = try peer.hearWords()
            // An answer that comes after all changes nothing any more.
            try peer.say(TransferMessage(.agree, announced?.id ?? 0))
            try connection.say(Array("hello".utf8))
            let next = try peer.hearWords()
            return Observation(
                happened: failure != .noAnswer || told?.kind != .abort || told?.reason != .noAnswer
                    || words == nil || next == nil,
                lines: [
                    "announced, and no answer within 50 ms: \(failure?.rawValue ?? "no outcome")",
                    "the other side was told: \(told.map { "\($0.kind), \($0.reason.rawValue)" } ?? "nothing")",
                    "the next messages were sent, and a late answer changed nothing",
                ])
        })
}
