import FileTransfer
import Glibc
import Kernel
import Stage

/// The receiver's disk is full. A limit on the size of files is the same to whoever writes; it holds for a whole process,
/// so each half runs in a process of its own.
public enum DiskFull {
    private static let argument = "--full-disk-child"
    private static let limit = 64 << 10
    private static let size = 200_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "disk-full",
        title: "the receiver's disk is full, and what fitted is kept as if it were the file",
        broken: { driver in try inChild("broken", driver) },
        fixed: { driver in try inChild("fixed", driver) })

    private static func inChild(_ half: String, _ driver: DriverKind) throws -> Observation {
        guard let program = Child.product("08-file-transfer") else {
            throw SystemError(ENOENT, attempted: "find the program 08-file-transfer beside this one")
        }
        let ending = try Child.run(program, [argument, half, driver.rawValue], within: .seconds(30))
        var lines = ending.output.split(separator: "\n").map(String.init)
        guard ending.status == 0, let last = lines.popLast() else {
            throw SystemError(
                ECHILD, attempted: "play with a full disk: status \(ending.status): \(ending.errors)")
        }
        return Observation(happened: last == "happened", lines: lines)
    }

    /// If this process was started as such a child: plays its half, and ends. To be called first in the program.
    public static func playIfChild() {
        let words = CommandLine.arguments
        guard words.count == 4, words[1] == argument, let driver = DriverKind(rawValue: words[3]) else {
            return
        }
        signal(SIGPIPE, SIG_IGN)
        do {
            let observation = words[2] == "broken" ? try broken() : try fixed(driver)
            for line in observation.lines { print(line) }
            print(observation.happened ? "happened" : "did not happen")
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }

    /// From here on no file gets longer than `limit`.
    private static func fillDisk() throws(SystemError) {
        // Without this the system ends the process that tries.
        signal(SIGXFSZ, SIG_IGN)
        var most = rlimit(rlim_cur: UInt(limit), rlim_max: UInt(limit))
        if setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &most) != 0 {
            throw SystemError(errno, attempted: "limit the size of files")
        }
    }

    private static func broken() throws -> Observation {
        let folder = try ScratchFolder()
        try fillDisk()
        var answers: [TransferMessage.Kind?] = []
        let pair = try Pair()
        let receiver = BrokenReceiver(ScriptedPeer(pair.server), into: folder.path)
        let sender = ScriptedPeer(pair.client)
        let thread = startThread("sender") {
            try? sender.push(1, "a", size: size, count: size)
            try? sender.socket.shutDownSending()
        }
        try receiver.run()
        thread.join()
        answers = [try sender.hear()?.kind, try sender.hear()?.kind]
        let kept = folder.contents("a")?.count ?? 0
        return Observation(
            happened: answers == [.agree, .verified] && kept < size,
            lines: [
                "\(readable(size)) bytes are sent to a disk with room for \(readable(limit))",
                "the receiver says: \(answers.map { $0.map { "\($0)" } ?? "nothing" }.joined(separator: ", "))",
                "under the final name: \(readable(kept)) bytes",
            ])
    }

    private static func fixed(_ driver: DriverKind) throws -> Observation {
        let sources = try ScratchFolder()
        let large = try sources.make("large", bytes: size)
        let small = try sources.make("small", bytes: 1_000)
        try fillDisk()
        var lines: [String] = []
        var isRight = true
        for preallocates in [true, false] {
            let stand = try Stand(driver) { $0.preallocates = preallocates }
            let client = try stand.client()
            let outcome = Outcome()
            try client.connection.send(file: large, outcome.observer)
            let result = outcome.wait()
            let here = stand.hasReceived(1) ? stand.received[0].failure : nil
            let isEmpty = eventually { stand.folder.names.isEmpty }
            // With the room reserved, the announcement is refused: not a byte crosses the wire.
            let peer = try ScriptedPeer(to: stand.address)
            try peer.say(TransferMessage(.announce, 1, value: UInt64(size), text: "large".utf8))
            let answer = try peer.hear()
            let isEarly = answer?.kind == .refuse && answer?.reason == .diskFull
            // The connection serves on.
            let next = try client.connection.sendAndWait(small)
            isRight =
                result?.failure == .diskFull && here == .diskFull && isEmpty && isEarly == preallocates
                && next.bytes == 1_000
                && client.stop() && stand.server.stop() && isRight
            lines.append(
                (preallocates ? "room reserved first: " : "found out in the middle: ")
                    + "\(result?.failure?.rawValue ?? "kept"), on both sides; left behind: \(isEmpty ? "nothing" : "a file")"
                    + "; the next file arrives")
        }
        return Observation(happened: !isRight, lines: lines)
    }
}
