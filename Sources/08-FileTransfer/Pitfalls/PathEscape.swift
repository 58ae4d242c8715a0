import FileTransfer
import Glibc
import Kernel
import Stage

/// The announced name leads out of the folder.
public enum PathEscape {
    /// Names that are none, as bytes, since not all of them are texts.
    public static let badNames: [[UInt8]] =
        [
            "../escaped", "/etc/escaped", "", ".", "..", "a/b", "a\u{0}b", "..\\escaped", "C:escaped",
            // The accent belongs to the dash: for Swift this text does not begin as it looks.
            ".incoming-1", ".incoming-\u{301}1",
            "a\u{1b}[2Jb", "a\u{9b}2Jb",
            // The direction of the text turned, so that it ends in .txt to the eye; a line end; what cannot be seen.
            "a\u{202E}txt.exe", "a\u{2028}b", "a\u{2029}b", "a\u{200B}b", "a\u{FEFF}b", "a\u{E000}b",
            String(repeating: "n", count: 10_000), String(repeating: "n", count: 256),
        ].map { Array($0.utf8) } + [[0x61, 0xFF, 0x62], [0x61, 0xC0, 0xAF, 0x62]]

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "path-escape",
        title: "the announced name is a path, and the file arrives outside the folder",
        broken: { _ in
            let outer = try ScratchFolder()
            let inner = outer.path(of: "inner")
            mkdir(inner, 0o755)
            _ = try withBrokenReceiver(inner) { sender in
                try sender.push(1, "../escaped", size: 100, count: 100)
            }
            let names = outer.names
            rmdir(inner)
            return Observation(
                happened: names == ["escaped", "inner"],
                lines: [
                    "the folder is \"inner\", the announced name is \"../escaped\"",
                    "beside the folder: \(names[0])",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let peer = try ScriptedPeer(to: stand.address)
            var accepted: [String] = []
            for (index, name) in badNames.enumerated() {
                try peer.say(TransferMessage(.announce, UInt32(index + 1), value: 10, text: name))
                let answer = try peer.hear()
                if answer?.kind != .refuse || answer?.reason != .unsafeName {
                    accepted.append(String(decoding: name, as: UTF8.self))
                }
                // What is asked for is judged in the same way.
                try peer.say(TransferMessage(.ask, UInt32(index + 1), text: name))
                let decline = try peer.hear()
                if decline?.kind != .decline || decline?.reason != .unsafeName {
                    accepted.append(String(decoding: name, as: UTF8.self))
                }
            }
            let left = stand.folder.names
            // A link that leads out is no file of the folder.
            symlink("/etc/passwd", stand.folder.path(of: "link"))
            try peer.say(TransferMessage(.ask, 99, text: "link".utf8))
            let link = try peer.hear()
            unlink(stand.folder.path(of: "link"))
            // An ordinary name, with everything that people put into names.
            let good = "Übung 1 – final (2).tar.gz"
            try peer.push(100, good, size: 10, count: 10)
            let answers = [try peer.hear()?.kind, try peer.hear()?.kind]
            return Observation(
                happened: !accepted.isEmpty || !left.isEmpty || link?.kind != .decline
                    || answers != [.agree, .verified]
                    || stand.folder.names != [good] || !stand.server.stop(),
                lines: [
                    "\(badNames.count) names that are none, announced and asked for: \(accepted.count) accepted",
                    "a link to /etc/passwd, asked for: \(link?.kind == .decline ? "declined" : "sent")",
                    "in the folder at the end: \(stand.folder.names.joined(separator: ", "))",
                ])
        })
}
