import Contexts
import Framing
import FramingPitfalls
import Glibc
import Kernel
import Reordering
import Stage
import Synchronization
import Testing

/// What a handler needs that has the program's own inside.
@Suite("Chapter 06: a handler around another one", .serialized)
struct Chapter06FramingAround {
    private static let codec = LengthPrefixed(.two, .bigEndian, maximumLength: 300)

    // I6.1
    @Test(
        "a tag stands in front of each message, and counts as a byte of it; without one frames are verbatim")
    func tags() throws {
        for codec in [
            Self.codec, LengthPrefixed(.four, .littleEndian, countsHeader: true, maximumLength: 300),
        ] {
            for count in [0, 1, 298, 299] {
                let message = [UInt8](repeating: 7, count: count)
                var tagged = SplitBuffer(limit: 400)
                var whole = SplitBuffer(limit: 400)
                try codec.append(tag: 9, message.span.bytes, to: &tagged)
                try codec.append(([9] + message).span.bytes, to: &whole)
                #expect(contents(tagged) == contents(whole))
            }
            // One byte too many, and a buffer that is too short by one: nothing is written.
            var buffer = SplitBuffer(limit: 400)
            let longest = [UInt8](repeating: 7, count: 300)
            #expect(throws: FrameError.self) { try codec.append(tag: 9, longest.span.bytes, to: &buffer) }
            var short = SplitBuffer(limit: codec.width.rawValue + 3)
            #expect(throws: FrameError.self) {
                try codec.append(tag: 9, ([1, 2, 3] as [UInt8]).span.bytes, to: &short)
            }
            #expect(buffer.isEmpty && short.isEmpty)
        }
        // Any codec can do it.
        var line = SplitBuffer(limit: 40)
        try Lines().append(tag: UInt8(ascii: ">"), Array("hello".utf8).span.bytes, to: &line)
        #expect(contents(line) == Array(">hello\n".utf8))
    }

    // I6.5
    @Test(
        "replies and sends have the handler's tag, and its own messages have others",
        arguments: DriverKind.permitted)
    func taggedConnection(driver: DriverKind) async throws {
        try await onAThread { facts in
            let around = Around()
            let service = try FramedService(Self.codec, options: .on(driver, workers: 2))
            let client = try Client(to: try service.listen { around })
            try client.send(try Streams.encode([[1, 2]], Self.codec))
            let expected = try Streams.encode([[5, 1, 2], [0, 1, 2], [0, 7]], Self.codec)
            facts.expect(try client.receive(expected.count).sorted() == expected.sorted())
            facts.expect(eventually { around.ticks.value > 0 })
            facts.expect(service.stop())
        }
    }

    // I6.7
    @Test("a chunk that a handler keeps is not refilled with answers", arguments: DriverKind.permitted)
    func kept(driver: DriverKind) async throws {
        try await onAThread { facts in
            let keeper = ChunkKeeper()
            let service = try FramedService(Self.codec, options: .on(driver, reads: 1))
            let client = try Client(to: try service.listen { keeper })
            let raw = [UInt8](repeating: 9, count: 50)
            let stream = try Streams.encode([[1]], Self.codec) + raw + Streams.encode([[2], [3]], Self.codec)
            try client.send(stream)
            let expected = try Streams.encode([[1], [2], [3]], Self.codec)
            facts.expect(try client.receive(expected.count) == expected)
            facts.expect(keeper.kept == raw)
            // It is the only read: until it is given back nothing more is taken.
            try client.send(try Streams.encode([[4]], Self.codec))
            facts.expect(service.ledger.messages == 3)
            keeper.giveBack()
            facts.expect(eventually { service.ledger.messages == 4 })
            facts.expect(service.stop())
        }
    }

    @Test("a finish can be made to wait, and messages can be refused", arguments: DriverKind.permitted)
    func delayed(driver: DriverKind) async throws {
        try await onAThread { facts in
            let echo = Refused()
            let service = try FramedService(Self.codec, options: .on(driver))
            let client = try Client(to: try service.listen { echo })
            facts.expect(eventually { echo.connection.locked { $0 } != nil })
            guard let connection = echo.connection.locked({ $0 }) else { return }
            connection.delayFinish(true)
            connection.finish()
            try connection.send(([8] as [UInt8]).span.bytes)
            connection.refusesMessages = true
            let refused = Result { () throws(SystemError) in try connection.send(([9] as [UInt8]).span.bytes)
            }
            if case .failure(let error) = refused {
                facts.expect(error.code == EBUSY)
            } else {
                facts.expect(false)
            }
            // A handler's own messages are not refused.
            try connection.send(([10] as [UInt8]).span.bytes, tagged: nil)
            try client.send(try Streams.encode([[1]], Self.codec))
            facts.expect(eventually { echo.refusals.value == 1 })
            connection.refusesMessages = false
            connection.delayFinish(false)
            let expected = try Streams.encode([[8], [10]], Self.codec)
            // Up to the end of the stream.
            facts.expect(try client.receive() == expected)
            echo.connection.locked { $0 = nil }
            facts.expect(service.stop())
        }
    }
}

/// Has a tag, and says everything three times: as its own message, as an answer and as a push.
private final class Around: FrameHandler {
    typealias Codec = LengthPrefixed
    let ticks = Counter()
    var messageTag: UInt8? { 0 }

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        try? connection.send(message, tagged: 5)
        try? connection.reply(message)
        try? connection.send(([7] as [UInt8]).span.bytes)
    }

    func tick(_ now: UInt64, on connection: FramedConnection<LengthPrefixed>) { ticks.add() }
}

/// Behind the message 1 come 50 raw bytes, whose chunk it keeps.
private final class ChunkKeeper: FrameHandler {
    typealias Codec = LengthPrefixed
    private let held = Guarded<(chunk: Chunk, range: Range<Int>)?>(nil)

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        if message.unsafeLoad(as: UInt8.self) == 1 { connection.passThrough(50) }
        try? connection.reply(message)
    }

    func passed(_ bytes: Range<Int>, of chunk: Chunk, on connection: FramedConnection<LengthPrefixed>) {
        chunk.keep()
        held.locked { $0 = (chunk, bytes) }
    }

    var kept: [UInt8] { held.locked { held in held.map { Array($0.chunk.contents[$0.range]) } ?? [] } }

    func giveBack() {
        held.locked { held in
            held?.chunk.giveBack()
            held = nil
        }
    }
}

/// An echo that counts what it may not say.
private final class Refused: FrameHandler {
    typealias Codec = LengthPrefixed
    let refusals = Counter()
    let connection = Guarded<FramedConnection<LengthPrefixed>?>(nil)

    func opened(_ connection: FramedConnection<LengthPrefixed>) { self.connection.locked { $0 = connection } }

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        do throws(FrameError) {
            try connection.reply(message)
        } catch {
            if error.fault == .refused { refusals.add() }
        }
    }

    func closed(_ connection: FramedConnection<LengthPrefixed>, _ reason: CloseReason) {
        self.connection.locked { $0 = nil }
    }
}
