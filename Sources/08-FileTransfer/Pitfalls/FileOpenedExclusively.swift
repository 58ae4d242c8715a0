import CKernel
import CompletionPorts
import FileTransfer
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: wants the file for itself, and believes the length that it had when it was opened.
final class BrokenExclusiveFile {
    let file: File
    let size: Int

    init(_ path: String) throws(SystemError) {
        file = try File(path)
        // What opening without a share mode does on Windows.
        if flock(file.descriptor, LOCK_EX | LOCK_NB) != 0 {
            throw SystemError(errno, attempted: "open \(path) for this program alone")
        }
        size = Int(try file.size)
    }

    /// Sends what was announced, and leaves the rest to the completion.
    func send(to socket: Socket, _ own: OwnPort) throws(SystemError) -> Packet {
        try own.port.associate(socket, key: 0)
        try socket.transmit(Overlapped(), file, length: size)
        return try own.next()
    }
}

/// The file is in use elsewhere: it cannot be opened, or it changes while it is sent.
public enum FileOpenedExclusively {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "file-opened-exclusively",
        title: "a file that others use cannot be sent, and one that they shorten leaves the receiver waiting",
        broken: { driver in
            let folder = try ScratchFolder()
            let path = try folder.make("a", bytes: 100_000)
            // Another program reads the file.
            let reader = try File(path)
            _ = flock(reader.descriptor, LOCK_SH)
            var refusal: SystemError?
            do throws(SystemError) { _ = try BrokenExclusiveFile(path) } catch { refusal = error }
            // A child that is just being started may have the lock, too, until it runs a program of its own.
            _ = flock(reader.descriptor, LOCK_UN)
            reader.close()
            // It gets the file, announces 100,000 bytes, and somebody shortens the file.
            let pair = try Pair()
            let sender = try BrokenExclusiveFile(path)
            truncate(path, 30_000)
            let packet = try sender.send(to: pair.server, try OwnPort(driver))
            let heard = try pair.client.hearBytes(100_000, within: .milliseconds(300))
            return Observation(
                happened: refusal?.code == EWOULDBLOCK && heard.count == 30_000
                    && packet.errorCode == SystemError.endOfFile,
                lines: [
                    "while somebody reads the file: \(refusal == nil ? "opened" : "cannot be opened")",
                    "then shortened: \(readable(heard.count)) of the 100,000 announced bytes came, and nobody says a word more",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let path = try stand.home.make("a", bytes: 100_000)
            // Others read and write it: it is read all the same, by two connections at once.
            let reader = try File(path)
            _ = flock(reader.descriptor, LOCK_EX)
            let clients = try (0..<2).map { _ in try stand.client() }
            let outcomes = try clients.enumerated().map { index, client in
                let outcome = Outcome()
                try client.connection.send(file: path, as: "copy-\(index)", outcome.observer)
                return outcome
            }
            let isShared = outcomes.allSatisfy { (try? $0.wait()?.get()) != nil }
            // Shortened, and lengthened, between the announcement and the answer.
            var failures: [TransferFailure?] = []
            var told: [TransferFailure?] = []
            let server = try ScriptedServer()
            let hub = try FileSide(Stand.options(driver))
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            for length in [30_000, 100_001] {
                let outcome = Outcome()
                try connection.send(file: try stand.home.make("b", bytes: 100_000), outcome.observer)
                let announced = try peer.hear()
                truncate(stand.home.path(of: "b"), length)
                try peer.say(TransferMessage(.agree, announced?.id ?? 0))
                let last = try peer.hear()
                told.append(last?.kind == .abort ? last?.reason : nil)
                failures.append(outcome.wait()?.failure)
            }
            let lease = try leaseIsNoticed(stand, clients[0])
            let isClean = clients.allSatisfy { $0.stop() } && hub.stop() && stand.server.stop()
            return Observation(
                happened: !isShared || failures != [.changed, .changed] || told != [.changed, .changed]
                    || lease == false
                    || !isClean,
                lines: [
                    "read and locked by another program: sent to two receivers at once: \(isShared)",
                    "shortened after it was announced: \(failures[0]?.rawValue ?? "no outcome"); lengthened: "
                        + "\(failures[1]?.rawValue ?? "no outcome"); the receiver is told the same",
                    "leased by another program, which would make opening wait: "
                        + (lease.map { $0 ? "said at once" : "not said" } ?? "this file system has no leases"),
                ])
        })

    /// A lease makes opening wait until its holder has let go of it: 45 seconds, or as long as it takes. Nil where there
    /// are no leases.
    private static func leaseIsNoticed(_ stand: Stand, _ client: Client) throws -> Bool? {
        let path = try stand.home.make("leased", bytes: 10)
        let holder = try File(path)
        defer { holder.close() }
        // Who breaks a lease sends its holder a signal: one that nobody minds.
        let (setSignal, setLease): (Int32, Int32) = (10, 1024)
        guard ck_fcntl(holder.descriptor, setSignal, SIGURG) == 0,
            ck_fcntl(holder.descriptor, setLease, Int32(F_WRLCK)) == 0
        else { return nil }
        let outcome = Outcome()
        try client.connection.send(file: path, outcome.observer)
        return outcome.wait()?.failure == .inUse
    }
}
