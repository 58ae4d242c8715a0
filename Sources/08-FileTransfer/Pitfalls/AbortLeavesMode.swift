import FileTransfer
import Glibc
import Kernel
import Stage

/// A transfer is called off, and the receiver stays in the middle of it.
public enum AbortLeavesMode {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "abort-leaves-mode",
        title: "a transfer is called off: the flag and the half file stay, and no other file is taken",
        broken: { _ in
            let folder = try ScratchFolder()
            let receiver = try withBrokenReceiver(folder.path) { sender in
                try sender.push(1, "a", size: 20_000, count: 10_000, completes: false)
                try sender.say(TransferMessage(.abort, 1, .aborted))
                try sender.push(2, "b", size: 100, count: 100, completes: false)
            }
            return Observation(
                happened: folder.contents("a")?.count == 10_100 && receiver.file != nil
                    && receiver.refusals == 1,
                lines: [
                    "called off after 10,000 of 20,000 bytes",
                    "the next file is refused, in file mode already, and its 100 bytes go where the last ones went",
                    "under the final name of the first: \(readable(folder.contents("a")?.count ?? 0)) bytes, still open",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            var lines: [String] = []
            var isRight = true
            let peer = try ScriptedPeer(to: stand.address)
            // By the sender, between two pieces.
            try peer.say(TransferMessage(.announce, 1, value: 20_000, text: "a".utf8))
            isRight = try peer.hear()?.kind == .agree
            try peer.say(TransferMessage(.piece, 1, count: 10_000))
            try peer.send(ScratchFolder.pattern(10_000))
            try peer.say(TransferMessage(.abort, 1, .aborted))
            isRight = stand.hasReceived(1) && stand.received[0].failure == .aborted && isRight
            lines.append("called off by the sender: \(stand.received[0].failure?.rawValue ?? "?")")
            // By the receiver, in the middle of a piece whose rest still comes.
            try peer.say(TransferMessage(.announce, 2, value: 20_000, text: "b".utf8))
            isRight = try peer.hear()?.kind == .agree && isRight
            try peer.say(TransferMessage(.piece, 2, count: 10_000))
            try peer.send(ScratchFolder.pattern(4_000))
            for connection in stand.server.connections { connection.callOff() }
            let refusal = try peer.hear()
            isRight = refusal?.kind == .refuse && refusal?.reason == .aborted && isRight
            lines.append(
                "called off by the receiver: the sender is told \"\(refusal?.reason.rawValue ?? "?")\"")
            try peer.send(ScratchFolder.pattern(6_000))
            // In both cases: nothing is left, and the next file is taken.
            let left = eventually { stand.folder.names.isEmpty } ? [] : stand.folder.names
            try peer.push(3, "c", size: 30_000, count: 30_000)
            let answers = [try peer.hear()?.kind, try peer.hear()?.kind]
            isRight =
                answers == [.agree, .verified] && stand.folder.contents("c") == ScratchFolder.pattern(30_000)
                && isRight
            lines.append("left of both: \(left.count) files; the next one over the same connection: whole")
            // By this side as the sender, which has no answer yet: the other one is told, and the next file is announced.
            let here = try ScratchFolder()
            let path = try here.make("d", bytes: 100)
            for connection in stand.server.connections {
                try connection.send(file: path)
                isRight = try peer.hear()?.kind == .announce && isRight
                connection.callOff()
                isRight = try peer.hear()?.kind == .abort && isRight
                let next = try connection.send(file: path)
                isRight = try peer.hear()?.kind == .announce && isRight
                connection.callOff(.file(next))
                isRight = try peer.hear()?.kind == .abort && isRight
            }
            lines.append("called off by this side as the sender: nothing is left, and the next is announced")
            isRight = left.isEmpty && stand.server.stop() && stand.folder.names == ["c"] && isRight
            return Observation(happened: !isRight, lines: lines)
        })
}
