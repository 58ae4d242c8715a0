import CKernel
import Contexts
import Framing
import Kernel
import Reordering
import Stage

/// Framed echo beside raw echo, at 64 connections of 64 bytes, with 1 and with 8 messages under way on each (chapter 06).
enum FramedEchoes {
    static let connections = 64
    /// 60 bytes of message and 4 of header: as many as raw echo gets.
    static let message = 60
    private static let codec = LengthPrefixed(.four, .bigEndian, maximumLength: message)

    /// Answers each message with a send of its own.
    private final class OneByOne: FrameHandler {
        func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
            try? connection.reply(message)
            connection.flush()
        }
    }

    private static func options() -> StreamHub.Options {
        var options = StreamHub.Options()
        options.workers = 1
        options.concurrency = 1
        options.pendingReads = 1
        options.chunkCapacity = 1024
        options.port.driver = .epoll
        return options
    }

    private static func hub(_ handler: @escaping @Sendable () -> any StreamHandler) throws -> (
        Address, () -> Void
    ) {
        let hub = try StreamHub(options())
        let address = try hub.listen { _ in handler() }
        return (address, { hub.stop() })
    }

    private static func framed(
        _ handler: @escaping @Sendable () -> any FrameHandler<LengthPrefixed>
    ) throws -> (Address, () -> Void) {
        let server = try FramedService(codec, options: options())
        let address = try server.listen(handler: handler)
        return (address, { server.stop() })
    }

    static var contenders: [Echo.Contender] {
        [
            Echo.port("raw echo, one port", .epoll),
            .init(name: "raw echo, hub", start: { try hub { Reordering.Echo() } }),
            .init(name: "framed echo", start: { try framed { FramedEcho() } }),
            .init(name: "framed echo, one send each", start: { try framed { OneByOne() } }),
        ]
    }

    static func measure(seconds: Double, into figures: inout Figures) throws {
        for depth in [1, 8] {
            for contender in contenders {
                ck_pin_thread(0, 0)
                let (address, stop) = try contender.start()
                ck_pin_thread(0, 1)
                let before = Resources.processTime
                var load = ClientLoad(
                    to: address, connections: connections, messageSize: depth * (message + 4),
                    duration: .seconds(seconds))
                load.framesEach = depth
                let report = try load.runInChild()
                let used = Resources.processTime - before
                stop()
                let name = "\(contender.name), depth \(depth)"
                let messages = Double(max(1, report.roundTrips * depth))
                figures.add(name, "messages/s", report.perSecond * Double(depth))
                figures.add("\(name): processor", "µs/message", used / .microseconds(1) / messages)
            }
        }
    }

    static func compare(_ figures: inout Figures) {
        let framed = "framed echo, depth"
        figures.compare("\(framed) 1", to: "raw echo, one port, depth 1", .atLeast(0.9))
        figures.compare("\(framed) 1", to: "raw echo, hub, depth 1", .atLeast(0.9))
        figures.compare("\(framed) 8", to: "raw echo, hub, depth 8")
        figures.compare("\(framed) 8", to: "framed echo, one send each, depth 8")
        figures.compare("\(framed) 8", to: "\(framed) 1")
    }
}
