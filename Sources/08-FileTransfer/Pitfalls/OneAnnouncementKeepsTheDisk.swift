import FileTransfer
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: who comes first gets all the room that he asks for, and keeps it as long as a byte comes now and
/// then. Times are seconds on a clock of its own.
struct BrokenRoom {
    private(set) var left: Int
    private var files: [(client: Int, size: Int, deadline: Int)] = []
    private static let stall = 30

    init(_ bytes: Int) { left = bytes }

    mutating func announced(_ size: Int, by client: Int, now: Int) -> Bool {
        guard size <= left else { return false }
        left -= size
        files.append((client, size, now + BrokenRoom.stall))
        return true
    }

    mutating func received(from client: Int, now: Int) {
        for index in files.indices where files[index].client == client {
            files[index].deadline = now + BrokenRoom.stall
        }
    }

    mutating func tick(now: Int) {
        for file in files where now >= file.deadline { left += file.size }
        files.removeAll { now >= $0.deadline }
    }
}

/// One announcement takes the room of everybody, and a byte now and then keeps it.
public enum OneAnnouncementKeepsTheDisk {
    private static let room = 1 << 20
    private static let quarter = room / 4

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "one-announcement-keeps-the-disk",
        title: "one announcement reserves the room of all, and a byte now and then keeps it",
        broken: { _ in
            var disk = BrokenRoom(room)
            let isAgreed = disk.announced(room, by: 1, now: 0)
            var refusals = 0
            // An hour, in no time.
            for second in 1...3_600 {
                if second % 20 == 0 { disk.received(from: 1, now: second) }
                disk.tick(now: second)
                if second % 60 == 0, !disk.announced(100_000, by: 2, now: second) { refusals += 1 }
            }
            return Observation(
                happened: isAgreed && refusals == 60 && disk.left == 0,
                lines: [
                    "a file of \(readable(room)) bytes is announced, as much as there is, and its room is reserved",
                    "then one byte every 20 seconds: \(3_600 / 20) bytes in an hour, and never 30 seconds without one",
                    "another client announces 100,000 bytes, once a minute: refused \(refusals) times of 60",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver) {
                $0.room = Int64(room)
                $0.limits = TransferLimits(slowest: 64 << 10, after: .milliseconds(300))
            }
            let peer = try ScriptedPeer(to: stand.address)
            func announce(_ peer: ScriptedPeer, _ id: UInt32, _ size: Int) throws -> TransferMessage? {
                try peer.say(TransferMessage(.announce, id, value: UInt64(size), text: "\(id)".utf8))
                return try peer.hear()
            }
            func finish(_ peer: ScriptedPeer, _ id: UInt32) throws -> Bool {
                let bytes = ScratchFolder.pattern(quarter)
                try peer.say(TransferMessage(.piece, id, count: UInt32(quarter)))
                try peer.send(bytes)
                try peer.say(TransferMessage(.complete, id, value: bytes.sum))
                return try peer.hear()?.kind == .verified
            }
            let all = try announce(peer, 1, room)
            let more = try announce(peer, 2, quarter + 1)
            let own = try announce(peer, 3, quarter)
            // The same client once more, over another connection.
            let twin = try ScriptedPeer(to: stand.address)
            let second = try announce(twin, 4, 1)
            // Another client gets its share, whatever the first one does.
            let other = try ScriptedPeer(to: stand.address, from: Address("127.0.0.2", port: 0)!)
            let isOthersKept = try announce(other, 5, quarter)?.kind == .agree && finish(other, 5)
            // A byte now and then.
            try peer.say(TransferMessage(.piece, 3, count: UInt32(quarter)))
            var bytes = 0
            let wish = { pollfd(fd: peer.socket.descriptor, events: Int16(POLLIN), revents: 0) }
            var ready = wish()
            while bytes < 1_000, poll(&ready, 1, 20) == 0 {
                try peer.send([1])
                bytes += 1
                ready = wish()
            }
            let last = try peer.hear()
            // Its room is given back, and is not given back twice.
            let isFree = eventually { stand.server.files.takenRoom == 0 }
            let isNextKept = try announce(twin, 6, quarter)?.kind == .agree && finish(twin, 6)
            let refusals = [all, more, second].map { $0?.kind == .refuse ? $0?.reason : nil }
            let isClean = eventually { stand.server.files.takenRoom == 0 } && stand.server.stop()
            return Observation(
                happened: refusals != [.overShare, .overShare, .overShare] || own?.kind != .agree
                    || !isOthersKept
                    || last?.kind != .refuse || last?.reason != .tooSlow || !isFree || !isNextKept
                    || !isClean,
                lines: [
                    "of \(readable(room)) bytes one address may take \(readable(quarter)); more, or more over another "
                        + "connection: refused, \"\(refusals[2]?.rawValue ?? "?")\"",
                    "another address meanwhile: \(isOthersKept ? "its file arrives" : "refused")",
                    "a byte now and then, \(bytes) in all, ends it: \"\(last?.reason.rawValue ?? "?")\"; its room is free "
                        + "again, and the next file arrives",
                ])
        })
}
