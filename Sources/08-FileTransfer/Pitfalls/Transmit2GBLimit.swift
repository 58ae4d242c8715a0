import CKernel
import CompletionPorts
import FileTransfer
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: sends a whole file with one call, and keeps its size in 32 bits as that call's parameter does.
struct BrokenWholeFileSender {
    static func send(_ path: String, to socket: Socket, _ own: OwnPort) throws(SystemError) -> Int {
        let file = try File(path)
        let length = UInt32(truncatingIfNeeded: try file.size)
        try own.port.associate(socket, key: 0)
        let operation = Overlapped()
        try socket.transmit(operation, file, length: Int(length))
        return try own.next().bytes
    }
}

/// One call moves at most so many bytes, and files are larger.
public enum Transmit2GBLimit {
    private static let gib: Int64 = 1 << 30
    /// MFD_CLOEXEC, which the C library hides.
    private static let closeOnExec: UInt32 = 1

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "transmit-2gb-limit",
        title: "one call moves at most 2 GiB: a larger file is refused, or cut without a word",
        broken: { driver in
            let folder = try ScratchFolder()
            // What the system does with a request for all of 3 GiB: a hole, which takes neither room nor time.
            let hole = ck_memfd_create("hole", closeOnExec)
            let nowhere = ck_open("/dev/null", O_WRONLY | O_CLOEXEC, 0)
            defer {
                close(hole)
                close(nowhere)
            }
            guard hole >= 0, ftruncate(hole, off_t(3 * gib)) == 0 else {
                throw SystemError(errno, attempted: "make a file of 3 GiB")
            }
            var position: off_t = 0
            let short = sendfile(nowhere, hole, &position, Int(3 * gib))
            // What TransmitFile does with it.
            let pair = try Pair()
            let large = try folder.makeSparse("large", bytes: 4 * gib + 100)
            var refusal: SystemError?
            do throws(SystemError) {
                try pair.server.transmit(Overlapped(), try File(large))
            } catch {
                refusal = error
            }
            // And with the low half of the size.
            let sent = try BrokenWholeFileSender.send(large, to: pair.server, try OwnPort(driver))
            return Observation(
                happened: short == 2_147_479_552 && refusal?.code == EINVAL && sent == 100,
                lines: [
                    "3,221,225,472 bytes asked of one sendfile: \(readable(short)) sent",
                    "\(readable(Int(4 * gib + 100))) bytes asked of one transmit: \(refusal.map { "\($0)" } ?? "accepted")",
                    "the same with the size in 32 bits: \(sent) bytes sent, and success",
                ])
        },
        fixed: { driver in
            let folder = try ScratchFolder()
            let server = try ScriptedServer()
            var options = Stand.options(driver)
            options.pieceLimit = 4_096
            let hub = try FileSide(options)
            defer { hub.stop() }
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            // The same steps as with a limit of 2 GiB, with smaller ones.
            let size = 1_000_003
            let outcome = Outcome()
            try connection.send(file: try folder.make("a", bytes: size), outcome.observer)
            guard let announced = try peer.hear() else {
                return Observation(happened: true, lines: ["no word"])
            }
            try peer.say(TransferMessage(.agree, announced.id))
            var pieces: [TransferMessage] = []
            while let message = try peer.hear(), message.kind == .piece { pieces.append(message) }
            let largest = pieces.map(\.count).max() ?? 0
            let isWhole = peer.raw == ScratchFolder.pattern(size)
            try peer.say(TransferMessage(.verified, announced.id))
            // And a size beyond 32 bits is announced as it is.
            try connection.send(file: try folder.makeSparse("large", bytes: 4 * gib + 100))
            let large = try peer.hear()
            return Observation(
                happened: !isWhole || largest > 4_096 || pieces.count != 245
                    || large?.value != UInt64(4 * gib + 100),
                lines: [
                    "\(readable(size)) bytes in \(pieces.count) pieces of up to \(readable(Int(largest))): "
                        + (isWhole ? "whole" : "not whole"),
                    "a file of 4 GiB and 100 bytes is announced with \(readable(Int(large?.value ?? 0)))",
                ])
        })
}
