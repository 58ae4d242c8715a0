import Contexts
import FileTransfer
import FileTransferPitfalls
import Glibc
import Kernel
import Stage
import Testing

@Suite("Chapter 08: files that arrive whole", .serialized)
struct Chapter08FileTransferExchange {
    @Test("files of every awkward size arrive whole, and are fetched whole", arguments: DriverKind.permitted)
    func sizes(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let client = try stand.client()
            let back = try ScratchFolder()
            for size in [0, 1, 8_191, 8_192, 16_383, 16_384, 16_385, 100_000] {
                let name = "file-\(size)"
                let receipt = try client.connection.sendAndWait(
                    try stand.home.make(name, bytes: size, seed: size))
                try require(receipt.bytes == size)
                try require(receipt.checksum == ScratchFolder.pattern(size, seed: size).sum)
                try require(stand.folder.contents(name) == ScratchFolder.pattern(size, seed: size))
                let fetched = try client.connection.fetch(name, into: back.path)
                try require(fetched.checksum == receipt.checksum)
                try require(back.contents(name) == ScratchFolder.pattern(size, seed: size))
            }
            try require(client.stop())
            try require(stand.server.stop())
            try require(stand.folder.names.count == 8)
        }
    }

    // I8.2
    @Test(
        "both directions at once over one connection, many files over many connections",
        arguments: DriverKind.permitted)
    func bothWays(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let back = try ScratchFolder()
            let size = 120_000
            for number in 0..<3 {
                for index in 0..<3 { try stand.folder.make("down-\(number)-\(index)", bytes: size + index) }
                for index in 0..<3 {
                    try stand.home.make("up-\(number)-\(index)", bytes: size + index, seed: 7)
                }
            }
            let clients = try (0..<3).map { _ in try stand.client() }
            var outcomes: [Outcome] = []
            for (number, client) in clients.enumerated() {
                for index in 0..<3 {
                    for _ in 0..<2 { outcomes.append(Outcome()) }
                    let pair = outcomes.suffix(2)
                    try client.connection.send(
                        file: stand.home.path(of: "up-\(number)-\(index)"), pair.first!.observer)
                    try client.connection.ask(
                        for: "down-\(number)-\(index)", into: back.path, pair.last!.observer)
                }
            }
            for outcome in outcomes { try require((try? outcome.wait()?.get()) != nil) }
            for number in 0..<3 {
                for index in 0..<3 {
                    try require(
                        back.contents("down-\(number)-\(index)") == ScratchFolder.pattern(size + index))
                    try require(
                        stand.folder.contents("up-\(number)-\(index)")
                            == ScratchFolder.pattern(size + index, seed: 7))
                }
            }
            for client in clients { try require(client.stop()) }
            try require(stand.server.stop())
        }
    }

    @Test(
        "progress goes forward, ends at the whole size, and knows the rate", arguments: DriverKind.permitted)
    func progress(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let client = try stand.client()
            let seen = Guarded<[TransferProgress]>([])
            try client.connection.sendAndWait(try stand.home.make("a", bytes: 200_000)) { progress in
                seen.locked { $0.append(progress) }
            }
            let all = seen.locked { $0 }
            let amounts = all.map(\.bytes)
            try require(amounts == amounts.sorted() && amounts.last == 200_000)
            try require(all.allSatisfy { $0.total == 200_000 && $0.rate > 0 && $0.timeLeft != nil })
            try require(all.last?.timeLeft == .zero)
            try require(client.stop())
            try require(stand.server.stop())
        }
    }

    // I8.4, I8.6
    @Test(
        "each reason not to have a file is said on both sides, and the connection serves on",
        arguments: DriverKind.permitted)
    func reasons(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver) { $0.maximumFileSize = 50_000 }
            let client = try stand.client()
            let connection = client.connection
            func failure(_ body: () throws -> TransferReceipt) -> TransferError? {
                do { _ = try body() } catch { return error as? TransferError }
                return nil
            }
            try stand.folder.make("there", bytes: 5)
            let there = try stand.home.make("there", bytes: 9)
            try require(
                failure { try connection.sendAndWait(there) }
                    == TransferError(.exists, "there", isFromPeer: true))
            try require(stand.folder.contents("there")?.count == 5)
            let large = try stand.home.make("large", bytes: 50_001)
            try require(failure { try connection.sendAndWait(large) }?.failure == .tooLarge)
            let missing = stand.home.path(of: "missing")
            try require(
                failure { try connection.sendAndWait(missing) } == TransferError(.notFound, "missing"))
            try require(failure { try connection.sendAndWait(stand.home.path) }?.failure == .cannotRead)
            try require(
                failure { try connection.fetch("missing", into: stand.home.path) }?.failure == .notFound)
            try require(failure { try connection.fetch("there") }?.failure == .declined)
            try require(
                failure { try connection.fetch("there", into: "/proc/no-such-folder") }?.failure
                    == .cannotWrite)
            try require(
                failure { try connection.fetch("../x", into: stand.home.path) }?.failure == .unsafeName)
            // A pipe is no file, and opening it for reading would wait for its other end.
            mkfifo(stand.home.path(of: "pipe"), 0o600)
            try require(
                failure { try connection.sendAndWait(stand.home.path(of: "pipe")) }?.failure == .cannotRead)
            // It says that it is empty, and is not: chapter 01 refuses it, too.
            try require(failure { try connection.sendAndWait("/proc/version") }?.failure == .notAFile)
            let words = failure { throw TransferError(.aborted, "x") }
            try require(words?.description == "x: called off")
            try require(connection.sendAndWait(try stand.home.make("good", bytes: 50_000)).bytes == 50_000)
            try require(eventually { stand.received.count == 3 })
            try require(stand.received.map(\.failure) == [.exists, .tooLarge, nil])
            try require(eventually { stand.folder.names == ["good", "there"] })
            try require(client.stop())
            try require(stand.server.stop())
        }
    }

    // I8.5
    @Test(
        "a client takes nothing that it has not asked for, and gives nothing that it has not chosen",
        arguments: DriverKind.permitted)
    func unasked(driver: DriverKind) async throws {
        try await onAThread {
            let folder = try ScratchFolder()
            let secret = try folder.make("secret", bytes: 5)
            // Without a folder, and with one that is nobody else's.
            var choices = Stand.options(driver, folder: folder.path)
            choices.takesUnasked = false
            choices.answersQuestions = false
            for options in [Stand.options(driver), choices] {
                let server = try ScriptedServer()
                let hub = try FileSide(options)
                let connection = try hub.connect(to: server.address)
                let peer = try server.accept()
                try peer.say(TransferMessage(.announce, 1, value: 5, text: "gift".utf8))
                try require(peer.hear() == TransferMessage(.refuse, 1, .declined))
                try peer.say(TransferMessage(.ask, 9, text: "secret".utf8))
                try require(peer.hear() == TransferMessage(.decline, 9, .declined))
                // It has asked for one name and gets another; and an answer to a question that it has not put.
                let outcome = Outcome()
                try connection.ask(for: "wanted", into: folder.path, outcome.observer)
                let question = try peer.hear()
                try require(question?.kind == .ask && question?.text == Array("wanted".utf8))
                try peer.say(TransferMessage(.announce, 2, count: 77, value: 5, text: "wanted".utf8))
                try require(peer.hear() == TransferMessage(.refuse, 2, .declined))
                try peer.say(
                    TransferMessage(.announce, 3, count: question?.id ?? 0, value: 5, text: "other".utf8))
                try require(peer.hear() == TransferMessage(.refuse, 3, .declined))
                try require(outcome.wait() == .failure(TransferError(.declined, "wanted")))
                // What it has chosen itself is sent all the same.
                try connection.send(file: secret)
                try require(peer.hear()?.kind == .announce)
                try require(folder.names == ["secret"])
                try require(hub.stop())
            }
        }
    }

    @Test(
        "a file is replaced only where that was asked for, and in one step", arguments: DriverKind.permitted)
    func replacing(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver) {
                $0.replaces = true
                $0.flushes = true
            }
            let client = try stand.client()
            try stand.folder.make("a", bytes: 70_000, seed: 3)
            // Who has the old one open keeps it. The file and then its folder are on the disk before "verified".
            let old = try File(stand.folder.path(of: "a"))
            try client.connection.sendAndWait(try stand.home.make("a", bytes: 40_000))
            try require(stand.folder.contents("a") == ScratchFolder.pattern(40_000))
            try require(old.size == 70_000)
            try require(client.stop())
            try require(stand.server.stop())
            try require(stand.folder.names == ["a"])
        }
    }

    // I8.4
    @Test("a file that has come to be there meanwhile is not overwritten", arguments: DriverKind.permitted)
    func meanwhile(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let peer = try ScriptedPeer(to: stand.address)
            try peer.say(TransferMessage(.announce, 1, value: 100, text: "a".utf8))
            try require(peer.hear()?.kind == .agree)
            try stand.folder.make("a", bytes: 7)
            let bytes = ScratchFolder.pattern(100)
            try peer.say(TransferMessage(.piece, 1, count: 100))
            try peer.send(bytes)
            try peer.say(TransferMessage(.complete, 1, value: bytes.sum))
            try require(peer.hear() == TransferMessage(.refuse, 1, .exists))
            try require(stand.folder.names == ["a"] && stand.folder.contents("a")?.count == 7)
            try require(stand.server.stop())
        }
    }

    // I8.3
    @Test("who stops in the middle is given up on, whichever side it is", arguments: DriverKind.permitted)
    func stalls(driver: DriverKind) async throws {
        try await onAThread {
            let limits = TransferLimits(answer: .milliseconds(400), stall: .milliseconds(400))
            let stand = try Stand(driver) { $0.limits = limits }
            // A sender that stops: the receiver says so, and the connection serves on.
            let peer = try ScriptedPeer(to: stand.address)
            try peer.say(TransferMessage(.announce, 1, value: 100, text: "a".utf8))
            try require(peer.hear()?.kind == .agree)
            try peer.say(TransferMessage(.piece, 1, count: 50))
            try peer.send(ScratchFolder.pattern(50))
            try require(peer.hear() == TransferMessage(.refuse, 1, .stalled))
            try require(eventually { stand.folder.names.isEmpty })
            try peer.say(TransferMessage(.ask, 2, text: "nothing".utf8))
            try require(peer.hear() == TransferMessage(.decline, 2, .notFound))
            // A receiver that stops taking, in the middle of a piece: there the connection has to end. The piece
            // is more than a connection holds, and summed up in a moment, since it goes out behind that.
            let large = 16 << 20
            let server = try ScriptedServer()
            let hub = try FileSide(
                with(Stand.options(driver)) {
                    $0.limits = limits
                    $0.pieceLimit = large
                })
            let connection = try hub.connect(to: server.address)
            let idle = try server.accept()
            let outcome = Outcome()
            try connection.send(
                file: try stand.home.makeSparse("large", bytes: Int64(large)), outcome.observer)
            try idle.say(TransferMessage(.agree, try idle.hear()?.id ?? 0))
            try require(outcome.wait()?.failure == .stalled)
            try require(eventually { hub.connections.isEmpty })
            // It is the same when the file has been called off, and another one waits behind the piece.
            let again = try hub.connect(to: server.address)
            let unwilling = try server.accept()
            let (off, behind) = (Outcome(), Outcome())
            try again.send(file: stand.home.path(of: "large"), off.observer)
            try again.send(file: stand.home.path(of: "large"), as: "behind", behind.observer)
            let id = try unwilling.hear()?.id ?? 0
            try unwilling.say(TransferMessage(.agree, id))
            try unwilling.take(100)
            try unwilling.say(TransferMessage(.refuse, id, .aborted))
            try require(off.wait()?.failure == .aborted)
            try require(behind.wait()?.failure == .disconnected)
            // One that has everything and never says so.
            let next = try hub.connect(to: server.address)
            let silent = try server.accept()
            let last = Outcome()
            try next.send(file: try stand.home.make("small", bytes: 10), last.observer)
            try silent.say(TransferMessage(.agree, try silent.hear()?.id ?? 0))
            try require(last.wait()?.failure == .noAnswer)
            // And a question that nobody answers.
            let question = Outcome()
            try next.ask(for: "x", into: stand.home.path, question.observer)
            try require(question.wait()?.failure == .noAnswer)
            try require(hub.stop())
            try require(stand.server.stop())
        }
    }

    // I8.3
    @Test(
        "a receiver that takes a large piece slowly is waited for, as long as it takes something",
        arguments: DriverKind.permitted)
    func slowReceiver(driver: DriverKind) async throws {
        try await onAThread {
            let server = try ScriptedServer()
            let home = try ScratchFolder()
            // The sender sums all of it up, which a sanitizer makes slow.
            let (size, step) = isSanitized ? (16 << 20, 64 << 10) : (64 << 20, 256 << 10)
            let stall = Duration.milliseconds(600)
            let hub = try FileSide(
                with(Stand.options(driver)) {
                    $0.limits = TransferLimits(stall: stall)
                    $0.pieceLimit = size
                })
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            let outcome = Outcome()
            try connection.send(file: try home.makeSparse("a", bytes: Int64(size)), outcome.observer)
            try peer.say(TransferMessage(.agree, try peer.hear()?.id ?? 0))
            // The file is one piece, and for three times the limit it is not through.
            var left = try TransferMessage(.piece).frame().count + size
            let end = Deadline.after(stall * 3)
            while !end.hasPassed, left > size / 2 {
                try peer.take(step)
                left -= step
                usleep(20_000)
            }
            try require(!outcome.hasEnded)
            while left > 0 {
                let count = min(left, 1 << 20)
                try peer.take(count)
                left -= count
            }
            let last = try peer.hear()
            try require(last?.kind == .complete)
            try peer.say(TransferMessage(.verified, last?.id ?? 0))
            try require((try? outcome.wait()?.get())?.bytes == size)
            try require(hub.stop())
        }
    }

    // I8.6
    @Test(
        "who says no more behind its last word still hears that the file is there",
        arguments: DriverKind.permitted)
    func lastWord(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let bytes = ScratchFolder.pattern(200_000)
            let peer = try ScriptedPeer(to: stand.address)
            try peer.say(TransferMessage(.announce, 1, value: UInt64(bytes.count), text: "a".utf8))
            try require(peer.hear()?.kind == .agree)
            try peer.say(TransferMessage(.piece, 1, count: UInt32(bytes.count)))
            try peer.send(bytes)
            try peer.say(TransferMessage(.complete, 1, value: bytes.sum))
            try peer.socket.shutDownSending()
            try require(peer.hear() == TransferMessage(.verified, 1))
            try require(peer.hearEnd())
            try require(stand.folder.contents("a") == bytes)
            // The server's own observer may hear of it later than the peer.
            try require(eventually { stand.received.map(\.failure) == [nil] })
            // In the middle of a piece there is nothing to wait for.
            let other = try ScriptedPeer(to: stand.address)
            try other.say(TransferMessage(.announce, 1, value: 100, text: "b".utf8))
            try require(other.hear()?.kind == .agree)
            try other.say(TransferMessage(.piece, 1, count: 100))
            try other.socket.shutDownSending()
            try require(other.hearEnd())
            try require(eventually { stand.folder.names == ["a"] })
            try require(eventually { stand.received.map(\.failure) == [nil, .disconnected] })
            try require(stand.server.stop())
        }
    }

    // I8.6
    @Test(
        "who says no more behind what it says hears every answer that waits for its turn",
        arguments: DriverKind.permitted)
    func lastAnswers(driver: DriverKind) async throws {
        try await onAThread {
            let hub = try FileSide(Stand.options(driver)) { words, connection in try? connection.reply(words)
            }
            let peer = try ScriptedPeer(to: try hub.listen())
            let words = try (0..<60).map { try ScriptedPeer.frame("\($0)") }
            try peer.send(words.flatMap { $0 })
            try peer.socket.shutDownSending()
            for number in 0..<60 {
                try require(try peer.hearWords() == Array("\(number)".utf8))
            }
            try require(peer.hearEnd())
            try require(hub.stop())
        }
    }

    @Test(
        "progress is told before the end, also when the last write is through behind the last word",
        arguments: DriverKind.permitted)
    func progressBeforeTheEnd(driver: DriverKind) async throws {
        try await onAThread {
            let server = try ScriptedServer()
            let folder = try ScratchFolder()
            // The file is one chunk: its write is posted, and in the same call its last word is heard.
            let bytes = ScratchFolder.pattern(400_000)
            let hub = try FileSide(
                with(Stand.options(driver)) { $0.streams.chunkCapacity = 512 << 10 })
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            let told = Guarded<[String]>([])
            for round in 1...10 {
                let isOver = Gate()
                try connection.ask(
                    for: "a\(round)", into: folder.path,
                    TransferObserver(
                        progress: { progress in told.locked { $0.append("\(round): \(progress.bytes)") } },
                        finished: { _ in
                            told.locked { $0.append("\(round): over") }
                            isOver.open()
                        }))
                let question = try peer.hear()
                try peer.say(
                    TransferMessage(
                        .announce, 1, count: question?.id ?? 0, value: UInt64(bytes.count),
                        text: question?.text ?? []))
                try require(peer.hear()?.kind == .agree)
                try peer.send(
                    try TransferMessage(.piece, 1, count: UInt32(bytes.count)).frame() + bytes
                        + TransferMessage(.complete, 1, value: bytes.sum).frame())
                try require(peer.hear()?.kind == .verified)
                try require(isOver.pass())
            }
            try require(hub.stop())
            let all = told.locked { $0 }
            for round in 1...10 {
                // Of an earlier part another worker may tell late.
                let (bytes, end) = (
                    all.firstIndex(of: "\(round): 400000"), all.firstIndex(of: "\(round): over")
                )
                try require(try #require(bytes) < #require(end), "\(all)")
            }
        }
    }

    // I8.4
    @Test(
        "a file that becomes shorter inside a piece ends the connection, and is told as changed",
        arguments: DriverKind.permitted)
    func shortened(driver: DriverKind) async throws {
        try await onAThread {
            let server = try ScriptedServer()
            let home = try ScratchFolder()
            let size: Int64 = 64 << 20
            let path = try home.makeSparse("a", bytes: size)
            let hub = try FileSide(with(Stand.options(driver)) { $0.pieceLimit = Int(size) })
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            let (outcome, next) = (Outcome(), Outcome())
            try connection.send(file: path, outcome.observer)
            try connection.send(file: path, as: "b", next.observer)
            try peer.say(TransferMessage(.agree, try peer.hear()?.id ?? 0))
            // The piece has begun, and cannot be through: so much does not fit into what lies between the two.
            try peer.take(100_000)
            truncate(path, 1_000)
            // Up to the end of the stream, which comes too early.
            try peer.take(Int(size))
            try require(outcome.wait()?.failure == .changed, "\(String(describing: outcome.wait()))")
            try require(next.wait()?.failure == .disconnected)
            try require(hub.stop())
        }
    }

    // I8.7
    @Test("a file that does not fit takes no room from others meanwhile", arguments: DriverKind.permitted)
    func doesNotFit(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver) { $0.maximumFileSize = .max }
            let path = stand.folder.path
            let free = { @Sendable in
                var space = statvfs()
                return statvfs(path, &space) == 0 ? Int(space.f_bfree) * Int(space.f_frsize) : 0
            }
            let (before, isOver) = (free(), Gate())
            let lowest = Guarded(before)
            let watch = try Kernel.Thread("watch") {
                while !isOver.isOpen { lowest.locked { $0 = min($0, free()) } }
            }
            let peer = try ScriptedPeer(to: stand.address)
            try peer.say(TransferMessage(.announce, 1, value: UInt64(2 * before), text: "a".utf8))
            let answer = try peer.hear()
            isOver.open()
            watch.join()
            try require(answer == TransferMessage(.refuse, 1, .diskFull))
            try require(lowest.locked { $0 } > before / 2, "free: \(before), then \(lowest.locked { $0 })")
            try require(stand.server.stop())
        }
    }

    @Test("what waits has limits: files, questions", arguments: DriverKind.permitted)
    func limits(driver: DriverKind) async throws {
        try await onAThread {
            let server = try ScriptedServer()
            let home = try ScratchFolder()
            let path = try home.make("a", bytes: 10)
            let hub = try FileSide(
                with(Stand.options(driver)) {
                    $0.maximumWaitingFiles = 3
                })
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            try connection.send(file: path)
            // Announced, and so not one of those that wait.
            try require(peer.hear()?.kind == .announce)
            let outcomes = (0..<3).map { _ in Outcome() }
            for outcome in outcomes { try connection.send(file: path, outcome.observer) }
            try refuses(TransferError(.busy, "a")) { try connection.send(file: path) }
            for _ in 0..<3 { try connection.ask(for: "q", into: home.path) }
            try refuses(TransferError(.busy, "q")) { try connection.ask(for: "q", into: home.path) }
            // Everything that waits is called off, too.
            connection.callOff()
            for outcome in outcomes { try require(outcome.wait()?.failure == .aborted) }
            connection.close()
            try require(eventually { hub.connections.isEmpty })
            try refuses(TransferError(.disconnected, "a")) { try connection.send(file: path) }
            try require(hub.stop())
        }
    }

    // I8.3
    @Test(
        "a file that is being opened when all is called off is called off, too",
        arguments: DriverKind.permitted)
    func calledOffWhileOpening(driver: DriverKind) async throws {
        try await onAThread {
            let server = try ScriptedServer()
            let folder = try ScratchFolder()
            let hub = try FileSide(Stand.options(driver))
            let connection = try hub.connect(to: server.address)
            let peer = try server.accept()
            for _ in 0..<200 {
                let outcome = Outcome()
                try connection.ask(for: "a", into: folder.path, outcome.observer)
                let question = try peer.hear()
                try require(question?.kind == .ask)
                try peer.say(
                    TransferMessage(.announce, 1, count: question?.id ?? 0, value: 5, text: "a".utf8))
                // Before, while or after it is opened: nothing says which, and it makes no difference.
                let pause = monotonicNanoseconds() + UInt64.random(in: 0..<100_000)
                while monotonicNanoseconds() < pause {}
                connection.callOff()
                try require(outcome.wait()?.failure == .aborted)
                // In the end it is refused. Who does not wait for that outruns the hub's worker, and the hub takes what
                // piles up for a peer that does not read.
                var answer = try peer.hear()
                if answer?.kind == .agree { answer = try peer.hear() }
                try require(answer?.kind == .refuse)
            }
            try require(eventually { folder.names.isEmpty })
            try require(hub.stop())
        }
    }

    // I8.6
    @Test(
        "who has asked for a file hears that it was called off while it waited",
        arguments: DriverKind.permitted)
    func calledOffWhileWaiting(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            try stand.folder.make("a", bytes: 5)
            let peer = try ScriptedPeer(to: stand.address)
            try require(eventually { stand.server.connections.count == 1 })
            let connection = stand.server.connections[0]
            try connection.send(file: try stand.home.make("first", bytes: 5))
            let first = try peer.hear()
            try peer.say(TransferMessage(.ask, 7, text: "a".utf8))
            // The question waits behind the first file as soon as what was said after it is heard.
            try peer.say("now")
            try require(eventually { stand.words.count == 1 })
            connection.callOff()
            try require(peer.hear() == TransferMessage(.decline, 7, .aborted))
            try require(peer.hear() == TransferMessage(.abort, first?.id ?? 0, .aborted))
            try require(stand.server.stop())
        }
    }

    // I8.3
    @Test("nonsense ends the connection, and nothing behind it counts", arguments: DriverKind.permitted)
    func nonsense(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let frames: [[UInt8]] = [
                // Nothing, an unknown tag, those at the ends of the known ones, one cut short, and a length that is too long.
                [0, 0, 0, 0], [0, 0, 0, 1, 99], [0, 0, 0, 17, 10] + [UInt8](repeating: 0, count: 16),
                [0, 0, 0, 17, 15] + [UInt8](repeating: 0, count: 16),
                [0, 0, 0, 17, 255] + [UInt8](repeating: 0, count: 16), [0, 0, 0, 2, 1, 0],
                [0xFF, 0xFF, 0xFF, 0xFF],
            ]
            for frame in frames {
                let peer = try ScriptedPeer(to: stand.address)
                try peer.say(TransferMessage(.announce, 1, value: 100, text: "a".utf8))
                try require(peer.hear()?.kind == .agree)
                try peer.send(frame + (try ScriptedPeer.frame("late")))
                try require(peer.hearEnd())
            }
            try require(eventually { stand.received.count == frames.count })
            try require(stand.received.allSatisfy { $0.failure == .nonsense })
            try require(stand.words.isEmpty)
            try require(eventually { stand.folder.names.isEmpty })
            try require(stand.server.stop())
        }
    }

    @Test(
        "the demonstration's client: a line for each file, and exit status 1 when one did not go across",
        arguments: DriverKind.permitted)
    func commandLine(driver: DriverKind) async throws {
        try await onAThread {
            let program = try { () throws -> String in
                guard let path = Child.product("08-file-transfer") else {
                    throw SystemError(ENOENT, attempted: "find the program 08-file-transfer beside this one")
                }
                return path
            }()
            let stand = try Stand(driver)
            let here = try ScratchFolder()
            let path = try stand.home.make("a", bytes: 100_000)
            func run(_ words: [String]) throws -> Child.Ending {
                try Child.run(program, words + ["--driver", driver.rawValue], within: .seconds(30))
            }
            let sent = try run(["send", path, "--to", "\(stand.address)"])
            try require(sent.status == 0 && sent.output.hasPrefix("a: 100,000 bytes in "), sent.errors)
            try require(stand.folder.contents("a") == ScratchFolder.pattern(100_000))
            let again = try run(["send", path, "--to", "\(stand.address)"])
            try require(again.status == 1 && again.output.isEmpty)
            try require(
                again.errors
                    == "08-file-transfer: a: there is a file of that name already (says the other side)\n")
            let got = try run(["get", "a", "b", "--from", "\(stand.address)", "--folder", here.path])
            try require(got.status == 1 && got.output.hasPrefix("a: 100,000 bytes in "))
            try require(got.errors == "08-file-transfer: b: there is no such file (says the other side)\n")
            try require(here.names == ["a"] && here.contents("a") == ScratchFolder.pattern(100_000))
            try require(stand.server.stop())
        }
    }

    @Test("a folder that is none, or cannot be written, is said at the start")
    func folders() throws {
        let folder = try ScratchFolder()
        try folder.make("file", bytes: 1)
        // A path of no characters is no folder, and not the root of all of them.
        for (path, code) in [
            ("/proc/no-such-folder", ENOENT), (folder.path(of: "file"), ENOTDIR), ("", ENOENT),
        ] {
            #expect(throws: SystemError(code, attempted: "")) {
                try FileService(TransferOptions(folder: path))
            }
        }
        let server = try ScriptedServer()
        let hub = try FileSide(TransferOptions())
        let connection = try hub.connect(to: server.address)
        #expect(throws: TransferError(.declined, "a")) { try connection.ask(for: "a", into: "") }
        #expect(hub.stop())
    }
}

private func with<Value>(_ value: Value, _ change: (inout Value) -> Void) -> Value {
    var value = value
    change(&value)
    return value
}
