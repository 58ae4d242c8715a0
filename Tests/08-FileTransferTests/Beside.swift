import Contexts
import FileTransfer
import FileTransferPitfalls
import Framing
import Glibc
import Kernel
import Reordering
import Stage
import Testing

/// Files and messages on one connection.
@Suite("Chapter 08: files beside messages", .serialized)
struct Chapter08FileTransferBeside {
    /// No file is given up on because the machine is busy: neither when nothing comes, nor when little does.
    private let patient = TransferLimits(answer: .seconds(120), stall: .seconds(120), slowest: 1)

    // I8.1, I8.2
    @Test(
        "both directions at once, messages every millisecond and a push from a third thread",
        arguments: DriverKind.permitted)
    func everythingAtOnce(driver: DriverKind) async throws {
        try await onAThread {
            let (there, here) = (try ScratchFolder(), try ScratchFolder())
            let heard = [Guarded<[[UInt8]]>([]), Guarded<[[UInt8]]>([])]
            let options = [there, here].map { folder in
                var options = Stand.options(driver, folder: folder.path)
                options.limits = patient
                return options
            }
            let server = try FileSide(options[0]) { words, connection in
                heard[0].locked { $0.append(words) }
                try? connection.reply(words)
            }
            let client = try FileSide(options[1]) { words, _ in
                heard[1].locked { $0.append(words) }
            }
            // A sanitizer makes each of the many pieces slow.
            let size = isSanitized ? 200_000 : 2_000_000
            let pause: UInt32 = isSanitized ? 5_000 : 1_000
            for number in 0..<2 {
                try here.make("up-\(number)", bytes: size, seed: 3 + number)
                try there.make("down-\(number)", bytes: size, seed: 5 + number)
            }
            let connection = try client.connect(to: try server.listen()).waitUntilOpen()
            try require(eventually { server.connections.count == 1 })
            let other = server.connections[0]
            let outcomes = (0..<4).map { _ in Outcome() }
            for number in 0..<2 {
                try connection.send(file: here.path(of: "up-\(number)"), outcomes[number].observer)
                try connection.ask(for: "down-\(number)", outcomes[2 + number].observer)
            }
            let isOver = Gate()
            let pushed = Counter()
            let pusher = startThread("pusher") {
                while !isOver.isOpen {
                    // A queue that is full for the moment is no reason to give up.
                    if (try? other.say(Array("push \(pushed.value)".utf8))) != nil { pushed.add() }
                    usleep(pause)
                }
            }
            var said = 0
            while !outcomes.allSatisfy(\.hasEnded), said < 20_000 {
                // Nor here.
                if (try? connection.say(Array("say \(said)".utf8))) != nil { said += 1 }
                usleep(pause)
            }
            isOver.open()
            pusher.join()
            for outcome in outcomes {
                let result = outcome.wait()
                if (try? result?.get())?.bytes != size {
                    Issue.record("\(String(describing: result)) beside \(said) and \(pushed.value) messages")
                }
            }
            let (all, pushes) = (said, pushed.value)
            try require(eventually { heard[0].locked { $0.count } == all })
            try require(eventually { heard[1].locked { $0.count } == all + pushes })
            // Each in its order, and whole.
            try require(heard[0].locked { $0 } == (0..<all).map { Array("say \($0)".utf8) })
            let mixed = heard[1].locked { $0 }
            try require(
                mixed.filter { $0.starts(with: "say".utf8) } == (0..<all).map { Array("say \($0)".utf8) })
            try require(
                mixed.filter { $0.starts(with: "push".utf8) } == (0..<pushes).map { Array("push \($0)".utf8) }
            )
            for number in 0..<2 {
                try require(there.contents("up-\(number)") == ScratchFolder.pattern(size, seed: 3 + number))
                try require(here.contents("down-\(number)") == ScratchFolder.pattern(size, seed: 5 + number))
            }
            try require(client.stop() && server.stop())
        }
    }

    // I8.8
    @Test(
        "two sides whose programs leave no room for messages about files do not wait for each other for ever",
        arguments: DriverKind.permitted)
    func noRoomOnBothSides(driver: DriverKind) async throws {
        try await onAThread {
            let (there, here) = (try ScratchFolder(), try ScratchFolder())
            let server = try FileSide(Stand.options(driver, folder: there.path)) { _, _ in }
            let client = try FileSide(Stand.options(driver, folder: here.path)) { _, _ in }
            let connection = try client.connect(to: try server.listen()).waitUntilOpen()
            try require(eventually { server.connections.count == 1 })
            let sides = [connection, server.connections[0]]
            let streams = sides.compactMap { $0.connection?.stream }
            // Neither reads, and each sends until there is no room: not in the other's buffers, not in its own, and no context.
            for stream in streams { stream.pauseReading() }
            let words = [UInt8](repeating: 7, count: 2_000)
            for side in sides {
                var refusals = 0
                try require(
                    eventually {
                        refusals += 1
                        while (try? side.say(words)) != nil { refusals = 0 }
                        return refusals == 20
                    })
            }
            // Now each has something to say about a file, and it has to wait.
            try here.make("up", bytes: 100)
            try there.make("down", bytes: 100)
            let outcomes = [Outcome(), Outcome()]
            try sides[0].ask(for: "down", outcomes[0].observer)
            try sides[1].ask(for: "up", outcomes[1].observer)
            for stream in streams { stream.resumeReading() }
            for outcome in outcomes { try require((try? outcome.wait()?.get())?.bytes == 100) }
            try require(client.stop() && server.stop())
        }
    }

    // I8.1
    @Test("messages, heads and raw bytes cut at every byte", arguments: DriverKind.permitted)
    func cuts(driver: DriverKind) async throws {
        try await onAThread {
            let bytes = ScratchFolder.pattern(60)
            var stream = try ScriptedPeer.frame("one")
            stream += try TransferMessage(.announce, 1, value: 60, text: "a".utf8).frame()
            stream += try ScriptedPeer.frame("two")
            stream += try TransferMessage(.piece, 1, count: 25).frame() + bytes[..<25]
            stream += try ScriptedPeer.frame("") + TransferMessage(.ask, 9, text: "none".utf8).frame()
            stream += try TransferMessage(.piece, 1, count: 0, value: 25).frame()
            stream += try TransferMessage(.piece, 1, count: 35, value: 25).frame() + bytes[25...]
            stream +=
                try TransferMessage(.complete, 1, value: bytes.sum).frame() + ScriptedPeer.frame("three")
            // The first chunk ends at the cut, and so does each that is as long.
            for cut in 1...stream.count {
                let folder = try ScratchFolder()
                var options = Stand.options(driver, folder: folder.path)
                options.streams.chunkCapacity = cut
                options.streams.pendingReads = 2
                let words = Guarded<[[UInt8]]>([])
                // The program has short frames, and files go in them.
                let codec = LengthPrefixed(.four, .bigEndian, maximumLength: 300)
                let side = try FileSide(options, codec: codec) { heard, _ in words.locked { $0.append(heard) }
                }
                let peer = try ScriptedPeer(to: try side.listen())
                try peer.send(stream)
                try require(peer.hear()?.kind == .agree, "cut at \(cut)")
                try require(peer.hear() == TransferMessage(.decline, 9, .notFound), "cut at \(cut)")
                try require(peer.hear() == TransferMessage(.verified, 1), "cut at \(cut)")
                let said = ["one", "two", "", "three"].map { Array($0.utf8) }
                try require(eventually { words.locked { $0 } == said }, "cut at \(cut)")
                try require(folder.contents("a") == bytes, "cut at \(cut)")
                try require(side.stop())
            }
        }
    }

    // I8.6, I8.8
    @Test("who asks 1,000 things in one write hears 1,000 answers", arguments: DriverKind.permitted)
    func manyQuestions(driver: DriverKind) async throws {
        try await onAThread {
            for sends in [1, 64] {
                let stand = try Stand(driver) {
                    $0.streams.workers = 1
                    $0.streams.maximumPendingSends = sends
                }
                try stand.folder.make("there", bytes: 5)
                let peer = try ScriptedPeer(to: stand.address)
                // The first is announced, and as many wait behind it as may; those beyond are told.
                let names = ["there"] + (1..<1_000).map { "none-\($0)" }
                try peer.send(
                    try names.enumerated().flatMap {
                        try TransferMessage(.ask, UInt32($0.offset + 1), text: $0.element.utf8).frame()
                    })
                let announced = try peer.hear()
                try require(announced?.kind == .announce && announced?.count == 1)
                for number in 66...1_000 {
                    try require(peer.hear() == TransferMessage(.decline, UInt32(number), .busy), "\(number)")
                }
                try peer.say(TransferMessage(.refuse, announced?.id ?? 0, .aborted))
                for number in 2...65 {
                    try require(
                        peer.hear() == TransferMessage(.decline, UInt32(number), .notFound), "\(number)")
                }
                try peer.say("still there")
                try require(eventually { stand.words.count == 1 })
                try require(stand.server.stop())
            }
        }
    }

    // I8.8
    @Test(
        "who asks or says something, and does not listen, is held back, and hears everything in the end",
        arguments: DriverKind.permitted)
    func heldBack(driver: DriverKind) async throws {
        try await onAThread {
            let folder = try ScratchFolder()
            let server = try FileSide(Stand.options(driver, folder: folder.path)) { words, connection in
                try? connection.reply(words)
            }
            let address = try server.listen()
            for asks in [true, false] {
                let peer = try ScriptedPeer(to: address)
                // What has been answered lies in the system's buffer: as little as it lets it be.
                try require(eventually { server.connections.count == 1 })
                try server.connections[0].connection?.stream?.socket.setBufferSizes(send: 4_096)
                let long = String(repeating: "x", count: 1_000)
                let frame =
                    try asks
                    ? TransferMessage(.ask, 7, text: long.utf8).frame() : ScriptedPeer.frame(long)
                let block = Array((0..<30).map { _ in frame }.joined())
                var sent = 0
                let limit = 64 << 20
                sending: while sent < limit {
                    let rest = Array(block[(sent % block.count)...])
                    let count = try rest.withUnsafeBytes { try peer.socket.sendNow($0) }
                    if let count {
                        sent += count
                        continue
                    }
                    var wish = pollfd(fd: peer.socket.descriptor, events: Int16(POLLOUT), revents: 0)
                    if poll(&wish, 1, 1_000) == 0 { break sending }
                }
                try require(sent < limit, "\(sent) bytes were taken")
                // The rest of the frame that was cut, while it listens.
                let whole = (sent + frame.count - 1) / frame.count
                let missing = Array(frame[(frame.count - (whole * frame.count - sent))...])
                let rest = startThread("rest") { try? peer.send(missing) }
                for number in 0..<whole {
                    if asks {
                        try require(peer.hear() == TransferMessage(.decline, 7, .unsafeName), "\(number)")
                    } else {
                        try require(peer.hearWords()?.count == long.utf8.count, "\(number)")
                    }
                }
                rest.join()
                peer.socket.close()
                try require(eventually { server.connections.isEmpty })
            }
            try require(server.stop())
        }
    }

    // I8.6, I8.8
    @Test(
        "an answer that finds the queue full of the program's own messages waits, and comes behind them",
        arguments: DriverKind.permitted)
    func queueIsFull(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            try stand.folder.make("there", bytes: 20_000)
            let peer = try ScriptedPeer(to: stand.address)
            try require(eventually { stand.server.connections.count == 1 })
            let transfer = stand.server.connections[0]
            // The other side does not listen: at some time no more is taken.
            let words = [UInt8](repeating: 7, count: 30_000)
            var (said, full) = (0, 0)
            while said < 10_000, full < 100 {
                do throws(SystemError) {
                    try transfer.say(words)
                    said += 1
                    full = 0
                } catch {
                    try require(error.code == ENOBUFS)
                    full += 1
                    usleep(1_000)
                }
            }
            try require(full == 100)
            for number in 1...100 as ClosedRange<UInt32> {
                try peer.say(TransferMessage(.ask, number, text: "none".utf8))
            }
            try peer.say(TransferMessage(.ask, 101, text: "there".utf8))
            for _ in 0..<said { try require(peer.hearWords() == words) }
            for number in 1...100 as ClosedRange<UInt32> {
                try require(peer.hear() == TransferMessage(.decline, number, .notFound), "\(number)")
            }
            // A piece, too, is sent when there is room again.
            let announced = try peer.hear()
            try require(announced?.kind == .announce && announced?.count == 101)
            try peer.say(TransferMessage(.agree, announced?.id ?? 0))
            while let message = try peer.hear(), message.kind != .complete {}
            try require(peer.raw == ScratchFolder.pattern(20_000))
            try peer.say(TransferMessage(.verified, announced?.id ?? 0))
            try require(eventually { stand.sent.count == 101 })
            try require(stand.server.stop())
        }
    }

    // I8.3
    @Test("one direction is called off, or one file", arguments: DriverKind.permitted)
    func callOff(driver: DriverKind) async throws {
        try await onAThread {
            let (home, folder) = (try ScratchFolder(), try ScratchFolder())
            let path = try home.make("a", bytes: 100)
            let server = try ScriptedServer()
            let hub = try FileSide(Stand.options(driver, folder: folder.path))
            let transfer = try hub.connect(to: server.address).waitUntilOpen()
            let peer = try server.accept()
            let (up, next, down, later) = (Outcome(), Outcome(), Outcome(), Outcome())
            let first = try transfer.send(file: path, up.observer)
            try transfer.send(file: path, as: "b", next.observer)
            let question = try transfer.ask(for: "q", down.observer)
            let last = try transfer.ask(for: "r", later.observer)
            let announced = try peer.hear()
            try require(announced?.kind == .announce && announced?.id == first.number)
            let asked = try peer.hear()
            try require(asked?.kind == .ask && asked?.id == question.number)
            // What arrives is not touched, and neither is what only waits.
            transfer.callOff(.file(first))
            try require(up.wait()?.failure == .aborted)
            try require(peer.hear() == TransferMessage(.abort, first.number, .aborted))
            let second = try peer.hear()
            try require(second?.kind == .announce && second?.text == Array("b".utf8))
            try require(!next.hasEnded && !down.hasEnded)
            // A number that is over, or one of the other side's, is nobody's.
            transfer.callOff(.file(first))
            transfer.callOff(.sending)
            try require(next.wait()?.failure == .aborted)
            try require(peer.hear()?.kind == .abort)
            try require(!down.hasEnded)
            // The question is answered, and its file called off when it arrives; then the next one is asked.
            try peer.say(TransferMessage(.announce, 1, count: question.number, value: 10, text: "q".utf8))
            try require(peer.hear() == TransferMessage(.agree, 1))
            transfer.callOff(.file(question))
            try require(down.wait()?.failure == .aborted)
            try require(peer.hear() == TransferMessage(.refuse, 1, .aborted))
            try require(peer.hear()?.id == last.number && !later.hasEnded)
            // One that comes unasked has the other side's number.
            try peer.say(TransferMessage(.announce, 2, value: 10, text: "gift".utf8))
            try require(peer.hear() == TransferMessage(.agree, 2))
            transfer.callOff(.receiving)
            try require(peer.hear() == TransferMessage(.refuse, 2, .aborted))
            try require(later.wait()?.failure == .aborted)
            // An answer to it comes too late: it is nobody's question any more.
            try peer.say(TransferMessage(.announce, 3, count: last.number, value: 10, text: "r".utf8))
            try require(peer.hear() == TransferMessage(.refuse, 3, .declined))
            try require(eventually { folder.names.isEmpty })
            try require(hub.stop())
        }
    }

    // I8.3
    @Test(
        "a file that comes unasked is called off by its own name, or is not wanted",
        arguments: DriverKind.permitted)
    func offered(driver: DriverKind) async throws {
        try await onAThread {
            let folder = try ScratchFolder()
            let offers = Guarded<[(FileTransfer, TransferID, String, UInt64)]>([])
            var events = FileEvents()
            events.offered = { transfer, id, name, size in
                offers.locked { $0.append((transfer, id, name, size)) }
                return name != "junk"
            }
            let hub = try FileSide(Stand.options(driver, folder: folder.path), events: events)
            let peer = try ScriptedPeer(to: try hub.listen())
            try peer.say(TransferMessage(.announce, 1, value: 10, text: "junk".utf8))
            try require(peer.hear() == TransferMessage(.refuse, 1, .declined))
            try peer.say(TransferMessage(.announce, 2, value: 10, text: "good".utf8))
            try require(peer.hear() == TransferMessage(.agree, 2))
            let (transfer, id, name, size) = offers.locked { $0[1] }
            try require(name == "good" && size == 10 && id.isPeers && id.number == 2)
            transfer.callOff(.file(id))
            try require(peer.hear() == TransferMessage(.refuse, 2, .aborted))
            offers.locked { $0 = [] }
            try require(hub.stop())
        }
    }

    // I8.4, I8.7
    @Test(
        "sums are made where the program says, one after the other for each file",
        arguments: DriverKind.permitted)
    func sumsElsewhere(driver: DriverKind) async throws {
        try await onAThread {
            let works = Counter()
            let stand = try Stand(driver) {
                $0.sums = { work in
                    works.add()
                    // Any thread, and at any time.
                    _ = startThread("sums") {
                        usleep(UInt32.random(in: 0...2_000))
                        work()
                    }
                }
            }
            let client = try stand.client {
                $0.sums = { work in
                    works.add()
                    _ = startThread("sums") { work() }
                }
            }
            for number in 0..<5 {
                let path = try stand.home.make("\(number)", bytes: 100_000, seed: number)
                try require(client.connection.sendAndWait(path).bytes == 100_000)
                try require(
                    stand.folder.contents("\(number)") == ScratchFolder.pattern(100_000, seed: number))
            }
            try require(works.value >= 10)
            try require(client.stop() && stand.server.stop())
        }
    }

    // I8.4
    @Test("a file that does not say how long it is is not sent", arguments: DriverKind.permitted)
    func notAFile(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let client = try stand.client()
            for path in ["/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled"]
            where access(path, R_OK) == 0 {
                let outcome = Outcome()
                try client.connection.send(file: path, outcome.observer)
                try require(outcome.wait()?.failure == .notAFile, path)
            }
            try require(client.connection.sendAndWait(try stand.home.make("empty", bytes: 0)).bytes == 0)
            try require(client.stop() && stand.server.stop())
        }
    }

    // I8.1
    @Test(
        "the program's own raw bytes pass between files, and their chunk may be kept",
        arguments: DriverKind.permitted)
    func rawBeside(driver: DriverKind) async throws {
        try await onAThread {
            let folder = try ScratchFolder()
            let files = try FileService(Stand.options(driver, folder: folder.path))
            let service = try FramedService(TransferMessage.codec, options: files.options.streams)
            let keeper = RawKeeper()
            let address = try service.listen { FileTransfer(files, around: keeper) }
            let peer = try ScriptedPeer(to: address)
            let bytes = ScratchFolder.pattern(20_000)
            try peer.say(TransferMessage(.announce, 1, value: 20_000, text: "a".utf8))
            try peer.send(try TransferMessage(.piece, 1, count: 9_000).frame() + bytes[..<9_000])
            try peer.send(try ScriptedPeer.frame("raw") + [UInt8](repeating: 9, count: 1_000))
            try peer.send(
                try TransferMessage(.piece, 1, count: 11_000, value: 9_000).frame() + bytes[9_000...])
            try peer.say(TransferMessage(.complete, 1, value: bytes.sum))
            try require(peer.hear()?.kind == .agree)
            try require(peer.hear()?.kind == .verified)
            try require(folder.contents("a") == bytes)
            // Read into again it would be something else by now.
            try require(keeper.kept == [UInt8](repeating: 9, count: 1_000))
            keeper.giveBack()
            try require(service.stop() && files.isIdle)
        }
    }

    // I8.3
    @Test(
        "a transfer is called off at 200 places, and its connection carries the next file",
        arguments: DriverKind.permitted)
    func sameConnection(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let peer = try ScriptedPeer(to: stand.address)
            try require(eventually { stand.server.connections.count == 1 })
            let transfer = stand.server.connections[0]
            let bytes = ScratchFolder.pattern(50_000)
            for round in 1...200 as ClosedRange<UInt32> {
                let (name, place) = ("\(round)", Int.random(in: 0...bytes.count))
                try peer.say(TransferMessage(.announce, 2 * round, value: 50_000, text: name.utf8))
                try require(peer.hear()?.kind == .agree)
                try peer.say(TransferMessage(.piece, 2 * round, count: 50_000))
                try peer.send(Array(bytes[..<place]))
                if round % 2 == 0 {
                    // By the receiver, wherever its bytes are; the piece is sent to its end.
                    transfer.callOff(.receiving)
                    try require(peer.hear() == TransferMessage(.refuse, 2 * round, .aborted), "at \(place)")
                    try peer.send(Array(bytes[place...]))
                } else {
                    try peer.send(Array(bytes[place...]))
                    try peer.say(TransferMessage(.abort, 2 * round, .aborted))
                }
                try peer.push(2 * round + 1, name, size: 1_000, count: 1_000)
                try require(peer.hear()?.kind == .agree, "after \(place)")
                try require(peer.hear() == TransferMessage(.verified, 2 * round + 1), "after \(place)")
                unlink(stand.folder.path(of: name))
            }
            try require(eventually { stand.folder.names.isEmpty })
            try require(stand.server.stop())
        }
    }
}

/// A program whose message "raw" is followed by 1,000 bytes of its own; it keeps their chunk.
private final class RawKeeper: FrameHandler {
    private let state = Guarded<(chunk: Chunk?, range: Range<Int>, bytes: [UInt8])>((nil, 0..<0, []))

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        connection.passThrough(1_000)
    }

    func passed(_ bytes: Range<Int>, of chunk: Chunk, on connection: FramedConnection<LengthPrefixed>) {
        state.locked { state in
            if let last = state.chunk {
                state.bytes += last.contents[state.range]
                last.giveBack()
            }
            chunk.keep()
            (state.chunk, state.range) = (chunk, bytes)
        }
    }

    var kept: [UInt8] {
        state.locked { state in
            state.bytes + (state.chunk.map { chunk in Array(chunk.contents[state.range]) } ?? [])
        }
    }

    func giveBack() {
        state.locked { state in
            state.chunk?.giveBack()
            state.chunk = nil
        }
    }
}
