import CompletionPorts
import FileTransfer
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: sends every file as soon as somebody asks, piece by piece, whatever else is being sent.
final class BrokenParallelSender {
    private let socket: Socket
    private let own: OwnPort
    private var files: [(file: File, sent: Int, size: Int)] = []

    init(_ driver: DriverKind, _ socket: Socket) throws(SystemError) {
        self.socket = socket
        own = try OwnPort(driver)
        try own.port.associate(socket, key: 0)
    }

    func add(_ path: String) throws(SystemError) {
        let file = try File(path)
        files.append((file, 0, Int(try file.size)))
    }

    /// Each file's thread gets its turn.
    func run(pieces: Int) throws(SystemError) {
        while let left = files.firstIndex(where: { $0.sent < $0.size }) {
            for index in left..<files.count where files[index].sent < files[index].size {
                let operation = Overlapped()
                operation.offset = Int64(files[index].sent)
                let count = min(pieces, files[index].size - files[index].sent)
                try socket.transmit(operation, files[index].file, length: count)
                files[index].sent += try own.next().bytes
            }
        }
    }
}

/// Several files at once over one connection.
public enum OneFileAtATime {
    private static let size = 60_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "one-file-at-a-time",
        title: "several files are sent at once over one connection, and each gets bytes of the others",
        broken: { driver in
            let folder = try ScratchFolder()
            let pair = try Pair()
            let sender = try BrokenParallelSender(driver, pair.server)
            for seed in 1...2 { try sender.add(try folder.make("\(seed)", bytes: size, seed: seed)) }
            try sender.run(pieces: 10_000)
            let heard = [try pair.client.hearBytes(size), try pair.client.hearBytes(size)]
            let whole = (0..<2).filter { heard[$0] == ScratchFolder.pattern(size, seed: $0 + 1) }.count
            return Observation(
                happened: heard.allSatisfy { $0.count == size } && whole == 0,
                lines: [
                    "two files of \(readable(size)) bytes, by two threads over one connection",
                    "the receiver got \(readable(2 * size)) bytes, and \(whole) of the files whole",
                ])
        },
        fixed: { driver in
            // One connection: the second is announced when the first is verified.
            let folder = try ScratchFolder()
            let server = try ScriptedServer()
            let hub = try FileSide(Stand.options(driver))
            let connections = [try hub.connect(to: server.address), try hub.connect(to: server.address)]
            let peers = [try server.accept(), try server.accept()]
            for seed in 1...2 {
                let path = try folder.make("\(seed)", bytes: size, seed: seed)
                // To both connections: over several they go at the same time.
                for connection in connections { try connection.send(file: path) }
            }
            var order: [TransferMessage.Kind] = []
            // Both connections have announced their first file before either is answered.
            var announced = [try peers[0].hear(), try peers[1].hear()]
            let isParallel = announced.allSatisfy { $0?.kind == .announce && $0?.text == Array("1".utf8) }
            for round in 1...2 {
                for (index, peer) in peers.enumerated() {
                    if round == 2 { announced[index] = try peer.hear() }
                    let id = announced[index]?.id ?? 0
                    if index == 0 { order.append(announced[0]?.kind ?? .ask) }
                    try peer.say(TransferMessage(.agree, id))
                    while let message = try peer.hear() {
                        if index == 0, message.kind != order.last { order.append(message.kind) }
                        if message.kind == .complete { break }
                    }
                    try peer.say(TransferMessage(.verified, id))
                }
            }
            let expected = ScratchFolder.pattern(size, seed: 1) + ScratchFolder.pattern(size, seed: 2)
            let isWhole = peers.allSatisfy { $0.raw == expected }
            let isClean = hub.stop()
            return Observation(
                happened: !isWhole || !isParallel || !isClean
                    || order != [.announce, .piece, .complete, .announce, .piece, .complete],
                lines: [
                    "one connection: \(order.map { "\($0)" }.joined(separator: ", "))",
                    "two connections at the same time: \(isParallel); every file whole: \(isWhole)",
                ])
        })
}
