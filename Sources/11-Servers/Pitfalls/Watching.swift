import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Servers
import Stage
import Watch

/// A page of another site reads this server's figures, through the browser of somebody who may.
public enum BrowserReadsAcrossSites {
    /// ⚠︎ Broken on purpose: gives everybody the figures, under whatever name.
    final class BrokenPage: FrameHandler {
        typealias Codec = RequestHeads

        func received(_ head: RawSpan, on connection: FramedConnection<RequestHeads>) {
            let figures = "for my own eyes"
            try? connection.reply(
                "HTTP/1.1 200 OK\r\nContent-Length: \(figures.utf8.count)\r\n\r\n\(figures)")
        }
    }

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "browser-reads-across-sites",
        title: "a page of another site asks under a name that it has made to lead to this machine",
        broken: { driver in
            let service = try FramedService(RequestHeads(), options: .watched(driver))
            let address = try service.listen { BrokenPage() }
            let heard = try ask(address, as: "evil.example")
            service.stop()
            return Observation(
                happened: heard.contains("for my own eyes"),
                lines: [
                    "Host: evil.example", "is answered: \(heard.prefix { $0 != "\r\n" })",
                    "and gets the figures",
                ])
        },
        fixed: { driver in
            let service = try FramedService(RequestHeads(), options: .watched(driver))
            let page = StatusPage { ["name": .text("for my own eyes")] }
            let address = try service.listen { page.handler() }
            let foreign = try ask(address, as: "evil.example")
            let ours = try ["localhost", "127.0.0.1:\(address.port)"].map { try ask(address, as: $0) }
            service.stop()
            return Observation(
                happened: foreign.contains("for my own eyes") || !foreign.hasPrefix("HTTP/1.1 421 ")
                    || !ours.allSatisfy { $0.contains("for my own eyes") },
                lines: [
                    "Host: evil.example is answered: \(foreign.prefix { $0 != "\r\n" })",
                    "Host: localhost is answered: \(ours[0].prefix { $0 != "\r\n" })",
                ])
        })

    /// What a browser would send, and all that comes back.
    private static func ask(_ address: Address, as host: String) throws(SystemError) -> String {
        let socket = try Socket.connected(to: address)
        defer { socket.close() }
        try socket.say("GET /statistics HTTP/1.1\r\nHost: \(host)\r\n\r\n")
        try socket.shutDownSending()
        return try socket.hear(65_536)
    }
}

/// A viewer of the live events stops reading.
public enum ViewerDoesNotRead {
    /// ⚠︎ Broken on purpose: sends every event to every viewer, and leaves the rest to the queue.
    final class BrokenEvents: FrameHandler {
        typealias Codec = RequestHeads
        let viewer = Guarded<StreamConnection?>(nil)

        func opened(_ connection: FramedConnection<RequestHeads>) {
            // So that it is seen at once: with more room the system keeps the first megabytes.
            try? connection.stream?.socket.setBufferSizes(send: 32_768)
            viewer.locked { $0 = connection.stream }
        }

        func received(_ head: RawSpan, on connection: FramedConnection<RequestHeads>) {}

        func publish(_ event: [UInt8]) {
            try? viewer.locked { $0 }?.send(event)
        }

        func closed(_ connection: FramedConnection<RequestHeads>, _ reason: CloseReason) {
            viewer.locked { $0 = nil }
        }
    }

    private static let size = 32_000

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "viewer-does-not-read", title: "a viewer of the live events does not read, and they pile up",
        broken: { driver in
            let service = try FramedService(RequestHeads(), options: .watched(driver))
            let events = BrokenEvents()
            let address = try service.listen { events }
            let viewer = try Socket.connected(to: address)
            try viewer.setBufferSizes(receive: 4096)
            guard eventually({ events.viewer.locked { $0 != nil } }) else {
                throw SystemError(ETIMEDOUT, attempted: "connect as a viewer")
            }
            var pending: [Int] = []
            for number in 1...400 {
                events.publish([UInt8](repeating: UInt8(ascii: "."), count: size))
                if number % 200 == 0 {
                    pending.append(events.viewer.locked { $0 }?.traffic.pendingSends ?? 0)
                }
            }
            service.stop()
            return Observation(
                happened: pending[0] > 200 && pending[1] > pending[0] + 1_000,
                lines: [
                    "after 200 events of \(size) bytes \(pending[0]) sends are pending",
                    "after 400 events \(pending[1]) are: each event is kept for somebody who is not there",
                ])
        },
        fixed: { driver in
            let service = try FramedService(
                RequestHeads(), options: .watched(driver), round: .milliseconds(10))
            var options = StatusPage.Options()
            (options.interval, options.event) = (.milliseconds(20), .seconds(3))
            let name = String(repeating: ".", count: size)
            let page = StatusPage(options) { ["name": .text(name)] }
            let address = try service.listen { page.handler() }
            let (stalled, other) = (try view(address), try view(address))
            try stalled.setBufferSizes(receive: 4096)
            var (most, heard) = (0, 0)
            let deadline = Deadline.after(.seconds(30))
            while page.counters.dropped == 0, !deadline.hasPassed {
                heard += try other.hearBytes(max(1, other.unread)).count
                most = max(most, service.hub.connections.map(\.traffic.pendingSends).max() ?? 0)
            }
            let isEnded = stalled.isEnded()
            // It goes on: so much more than can have been under way.
            let later = try other.hearBytes(8 << 20, until: { $0 > 40 * size })
            let dropped = page.counters.dropped
            service.stop()
            return Observation(
                happened: most > 1 || !isEnded || dropped != 1 || later <= 40 * size
                    || page.counters.viewers != 0,
                lines: [
                    "at most \(most) event is under way to each viewer",
                    "the one that does not read is reset: \(isEnded); dropped: \(dropped)",
                    "the other one had \(heard) bytes by then, and goes on: \(later > 40 * size)",
                ])
        })

    private static func view(_ address: Address) throws(SystemError) -> Socket {
        let socket = try Socket.connected(to: address)
        try socket.say("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return socket
    }
}

extension Socket {
    /// Reads and throws away, until so much has come. How much.
    fileprivate func hearBytes(_ most: Int, until isEnough: (Int) -> Bool) throws(SystemError) -> Int {
        var count = 0
        while count < most, !isEnough(count) {
            let more = try hearBytes(max(1, unread)).count
            if more == 0 { break }
            count += more
        }
        return count
    }
}

extension StreamHub.Options {
    /// Room for as many sends as somebody likes to pile up.
    fileprivate static func watched(_ driver: DriverKind) -> StreamHub.Options {
        var options = StreamHub.Options()
        options.port.driver = driver
        options.maximumPendingSends = 10_000
        return options
    }
}
