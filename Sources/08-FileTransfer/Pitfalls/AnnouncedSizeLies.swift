import FileTransfer
import Glibc
import Kernel
import Stage

/// More or fewer bytes come than were announced.
public enum AnnouncedSizeLies {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "announced-size-lies",
        title: "more bytes come than were announced, or fewer, or others, and are kept under the file's name",
        broken: { _ in
            let folder = try ScratchFolder()
            _ = try withBrokenReceiver(folder.path) { sender in
                try sender.push(1, "more", size: 100, count: 5_000)
                try sender.push(2, "fewer", size: 5_000, count: 100)
            }
            let sizes = ["more", "fewer"].map { folder.contents($0)?.count ?? -1 }
            return Observation(
                happened: sizes == [5_000, 100],
                lines: [
                    "100 bytes announced, 5,000 sent: a file of \(readable(sizes[0])) bytes, verified",
                    "5,000 bytes announced, 100 sent: a file of \(readable(sizes[1])) bytes, verified",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let peer = try ScriptedPeer(to: stand.address)
            var answers: [(String, TransferFailure?)] = []
            func lie(_ what: String, _ id: UInt32, size: UInt64, _ body: () throws -> Void) throws {
                try peer.say(TransferMessage(.announce, id, value: size, text: "lie".utf8))
                let agreed = try peer.hear()?.kind == .agree
                try body()
                let answer = try peer.hear()
                answers.append((what, agreed && answer?.kind == .refuse ? answer?.reason : nil))
            }
            func piece(_ id: UInt32, _ count: Int, at offset: UInt64 = 0) throws {
                try peer.say(TransferMessage(.piece, id, count: UInt32(count), value: offset))
                try peer.send(ScratchFolder.pattern(count))
            }
            let sum = ScratchFolder.pattern(100).sum
            try lie("more", 1, size: 100) { try piece(1, 5_000) }
            try lie("fewer", 2, size: 5_000) {
                try piece(2, 100)
                try peer.say(TransferMessage(.complete, 2, value: sum))
            }
            try lie("elsewhere", 3, size: 200) {
                try piece(3, 100)
                try piece(3, 50, at: 150)
            }
            try lie("others", 4, size: 100) {
                try piece(4, 100)
                try peer.say(TransferMessage(.complete, 4, value: sum ^ 1))
            }
            // A size that no file can have is refused before anything is made of it.
            try peer.say(TransferMessage(.announce, 5, value: .max, text: "lie".utf8))
            answers.append(("2^64 - 1", try peer.hear()?.reason))
            let isEmpty = eventually { stand.folder.names.isEmpty }
            try peer.push(6, "honest", size: 100, count: 100)
            let last = [try peer.hear()?.kind, try peer.hear()?.kind]
            let expected: [TransferFailure?] = [
                .sizeDiffers, .sizeDiffers, .sizeDiffers, .checksumDiffers, .tooLarge,
            ]
            return Observation(
                happened: answers.map(\.1) != expected || !isEmpty || last != [.agree, .verified]
                    || !stand.server.stop() || stand.folder.names != ["honest"],
                lines: answers.map { "\($0.0): \($0.1.map { "refused, \($0.rawValue)" } ?? "taken")" } + [
                    "an honest file after that, over the same connection: taken"
                ])
        })
}
