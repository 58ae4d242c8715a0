import FileTransfer
import FileTransferPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// Transfers that end at every byte.
@Suite("Chapter 08: called off or cut anywhere", .serialized)
struct Chapter08FileTransferAborts {
    // I8.3, I8.4
    @Test("200 transfers end at random bytes, by either side; nothing is left, and the next one works: epoll")
    func anywhereEpoll() async { await #expect(processExitsWith: .success) { try endAnywhere(.epoll) } }

    // I8.3, I8.4
    @Test(
        "200 transfers end at random bytes, by either side; nothing is left, and the next one works: io_uring",
        .enabled(if: DriverKind.permitted.contains(.ioUring), "io_uring is not permitted here"))
    func anywhereRing() async {
        await #expect(processExitsWith: .success) { try endAnywhere(.ioUring) }
    }

    @Test(
        "the memory of 100 uploads at once is the system's again when they are gone",
        .disabled(if: isSanitized, "a sanitizer keeps freed memory back"))
    func memory() async { await #expect(processExitsWith: .success) { try peakAndLeave() } }
}

/// In a process of its own, since the system counts all memory of a process.
private func peakAndLeave() throws {
    let folder = try ScratchFolder()
    let hub = try FileSide(TransferOptions(folder: folder.path))
    let address = try hub.listen()
    let (size, part) = (1 << 20, ScratchFolder.pattern(64 << 10))
    /// So many files arrive but for their last byte, and then their senders leave.
    func uploads(_ count: Int) throws {
        let peers = try (0..<count).map { _ in try ScriptedPeer(to: address) }
        for (number, peer) in peers.enumerated() {
            try peer.say(TransferMessage(.announce, 1, value: UInt64(size + 1), text: "\(number)".utf8))
            try peer.say(TransferMessage(.piece, 1, count: UInt32(size + 1)))
            for _ in 0..<size / part.count { try peer.send(part) }
        }
        for peer in peers { peer.socket.close() }
        try insist(eventually { hub.connections.isEmpty && hub.files.pendingWrites == 0 }, "still connected")
    }
    try uploads(8)
    let before = Stage.Resources.residentBytes
    for _ in 0..<3 { try uploads(100) }
    // What the hub keeps for reuse is a few dozen chunks.
    var left = 0
    let isBack = eventually {
        left = Stage.Resources.residentBytes - before
        return left < 48 << 20
    }
    try insist(isBack, "\(left >> 20) MiB are left")
    try insist(hub.stop(), "everything comes back")
}

/// In a process of its own, what is said goes to its standard error output, and an error ends it.
private func insist(_ condition: Bool, _ words: @autoclosure () -> String, line: Int = #line) throws {
    guard !condition else { return }
    let text = "\(words())\n"
    _ = text.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    throw Unmet(description: "line \(line)")
}

/// In a process of its own, since it counts descriptors and threads.
private func endAnywhere(_ driver: DriverKind) throws {
    signal(SIGPIPE, SIG_IGN)
    try play(driver, rounds: 4)
    Stage.Resources.settle()
    let before = (Stage.Resources.openDescriptors, Stage.Resources.threads)
    try play(driver, rounds: 200)
    let isBack = eventually {
        Stage.Resources.openDescriptors <= before.0 && Stage.Resources.threads <= before.1
    }
    try insist(
        isBack,
        "descriptors, threads: \(before) before, \(Stage.Resources.openDescriptors), \(Stage.Resources.threads) after"
    )
}

private func play(_ driver: DriverKind, rounds: Int) throws {
    let stand = try Stand(driver)
    let size = 50_000
    let path = try stand.home.make("source", bytes: size)
    let hub = try FileSide(Stand.options(driver))
    let server = try ScriptedServer()
    for round in 0..<rounds {
        switch round % 4 {
        case 0: try cutBySender(stand, size)
        case 1: try callOffBySender(stand, size)
        case 2: try endByReceiver(hub, server, path, size, cuts: true)
        default: try endByReceiver(hub, server, path, size, cuts: false)
        }
        try insist(
            eventually { stand.folder.names.isEmpty }, "left in round \(round): \(stand.folder.names)")
        // The next one works.
        let name = "next-\(round)"
        let receipt = try hub.connect(to: stand.address).sendAndWait(path, as: name)
        try insist(receipt.bytes == size, "the next one after round \(round)")
        try insist(stand.folder.contents(name) == ScratchFolder.pattern(size), "its bytes in round \(round)")
        unlink(stand.folder.path(of: name))
        for connection in hub.connections { connection.close() }
    }
    try insist(hub.stop() && stand.server.stop(), "everything comes back")
}

/// The whole stream of a transfer as its sender writes it.
private func stream(_ size: Int) throws -> [UInt8] {
    let bytes = ScratchFolder.pattern(size)
    var stream = try TransferMessage(.announce, 1, value: UInt64(size), text: "cut".utf8).frame()
    var position = 0
    while position < size {
        let count = min(16_384, size - position)
        stream += try TransferMessage(.piece, 1, count: UInt32(count), value: UInt64(position)).frame()
        stream += bytes[position..<position + count]
        position += count
    }
    return stream + (try TransferMessage(.complete, 1, value: bytes.sum).frame())
}

/// A random part of the stream comes, and then the end, or a reset.
private func cutBySender(_ stand: Stand, _ size: Int) throws {
    let stream = try stream(size)
    let peer = try ScriptedPeer(to: stand.address)
    // Not the last byte: then it would be whole.
    let count = Int.random(in: 0..<stream.count - 1)
    try peer.send(Array(stream[..<count]))
    if Bool.random() { try peer.socket.setAbortiveClose() }
    peer.socket.close()
    try insist(
        eventually { stand.server.connections.isEmpty }, "cut by the sender at \(count): still connected")
}

/// Some pieces of random sizes, and then it is called off.
private func callOffBySender(_ stand: Stand, _ size: Int) throws {
    let bytes = ScratchFolder.pattern(size)
    let peer = try ScriptedPeer(to: stand.address)
    try peer.say(TransferMessage(.announce, 1, value: UInt64(size), text: "off".utf8))
    var position = 0
    let end = Int.random(in: 0...size)
    while position < end {
        let count = min(Int.random(in: 1...20_000), end - position)
        try peer.say(TransferMessage(.piece, 1, count: UInt32(count), value: UInt64(position)))
        try peer.send(Array(bytes[position..<position + count]))
        position += count
    }
    try peer.say(TransferMessage(.abort, 1, .aborted))
    // The connection goes on: what it says next is answered.
    try peer.say(TransferMessage(.ask, 2, text: "nothing".utf8))
    var kinds: [TransferMessage.Kind] = []
    while let message = try peer.hear() {
        kinds.append(message.kind)
        if message.kind == .decline { break }
    }
    try insist(kinds == [.agree, .decline], "called off at \(end): \(kinds)")
}

/// A random part of the stream is read, and then the connection is cut; or the file is refused, and the next one taken.
private func endByReceiver(
    _ hub: FileSide, _ server: ScriptedServer, _ path: String, _ size: Int, cuts: Bool
) throws {
    let connection = try hub.connect(to: server.address)
    let peer = try server.accept()
    let outcome = Outcome()
    try connection.send(file: path, outcome.observer)
    let id = try peer.hear()?.id ?? 0
    let end = Int.random(in: 0...size)
    if cuts {
        try peer.say(TransferMessage(.agree, id))
        try peer.take(end)
        if Bool.random() { try peer.socket.setAbortiveClose() }
        peer.socket.close()
        try insist(outcome.wait()?.failure == .disconnected, "cut by the receiver at \(end)")
        return
    }
    if end > 0 {
        try peer.say(TransferMessage(.agree, id))
        while peer.raw.count < end, try peer.hear() != nil {}
    }
    try peer.say(TransferMessage(.refuse, id, .diskFull))
    try insist(
        outcome.wait() == .failure(TransferError(.diskFull, "source", isFromPeer: true)), "refused at \(end)")
    let next = Outcome()
    try connection.send(file: path, next.observer)
    // What was still on its way of the first comes before it.
    var message = try peer.hear()
    while let other = message, other.kind != .announce { message = try peer.hear() }
    try peer.say(TransferMessage(.agree, message?.id ?? 0))
    while let other = message, other.kind != .complete { message = try peer.hear() }
    try insist(
        Array(peer.raw.suffix(size)) == ScratchFolder.pattern(size), "the next one after a refusal at \(end)")
    try peer.say(TransferMessage(.verified, message?.id ?? 0))
    try insist((try? next.wait()?.get()) != nil, "the next one's end after a refusal at \(end)")
}
