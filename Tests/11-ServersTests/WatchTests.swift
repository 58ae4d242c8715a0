import Foundation
import Framing
import Glibc
import Kernel
import Reordering
import Stage
import Synchronization
import Testing

@testable import Watch

/// A page with a server of its own around it.
final class Watched: @unchecked Sendable {
    let service: FramedService<RequestHeads>
    let page: StatusPage
    let address: Address
    /// How often the figures were asked for.
    let asked: Counter

    init(
        _ driver: DriverKind, on address: Address = .loopback(), chunk: Int = 4096, rows: Int = 1,
        options change: (inout StatusPage.Options) -> Void = { _ in }
    ) throws {
        var options = StatusPage.Options()
        change(&options)
        let asked = Counter()
        let page = StatusPage(options) {
            [
                "name": .text("a server"), "milliseconds": .number(asked.add()), "connections": .number(rows),
                "rows": .list(
                    (0..<rows).map { row in
                        [
                            "id": .text("#\(row)"), "address": .text("127.0.0.1:\(row)"),
                            "state": .text("reading"), "messages": .number(row), "bytes": .number(2 * row),
                        ]
                    }),
            ]
        }
        var hub = StreamHub.Options()
        hub.port.driver = driver
        hub.chunkCapacity = chunk
        // The bounds that the tests state are those of one chunk.
        hub.maximumReadSize = chunk
        service = try FramedService(RequestHeads(), options: hub, round: .milliseconds(10))
        self.address = try service.listen(on: address) { page.handler() }
        (self.page, self.asked) = (page, asked)
    }

    func client() throws -> Socket { try Socket.connected(to: address) }

    /// Stops. Whether everything is back.
    func stop() -> Bool { service.stop() && page.counters.viewers == 0 }
}

/// An answer, read from a socket.
struct Heard: Equatable {
    var status = 0
    var fields: [String: String] = [:]
    var body = ""

    /// Reads one answer. Nil at the end of the stream.
    static func next(_ socket: Socket, isHead: Bool = false) throws -> Heard? {
        var head = ""
        while !head.hasSuffix("\r\n\r\n") {
            let byte = try socket.hear(1)
            if byte.isEmpty { return nil }
            head += byte
        }
        var lines = head.components(separatedBy: "\r\n")
        var heard = Heard()
        heard.status = Int(lines.removeFirst().split(separator: " ")[1]) ?? 0
        for line in lines where !line.isEmpty {
            let parts = line.components(separatedBy: ": ")
            heard.fields[parts[0].lowercased()] = parts.dropFirst().joined(separator: ": ")
        }
        if !isHead, let length = heard.fields["content-length"].flatMap({ Int($0) }) {
            heard.body = try socket.hear(length)
        }
        return heard
    }
}

/// What a body on a thread of its own expects. Issues are recorded when it has ended, by the test that it belongs to.
private final class Facts: Sendable {
    private let wrong = Mutex<[(words: String, place: SourceLocation)]>([])

    func expect(_ isSo: Bool, _ words: String = "", at place: SourceLocation = #_sourceLocation) {
        if !isSo { wrong.withLock { $0.append((words, place)) } }
    }

    func record() {
        for (words, place) in wrong.withLock({ $0 }) {
            Issue.record("not so: \(words)", sourceLocation: place)
        }
    }
}

private func onAThread(_ body: @escaping @Sendable (Facts) throws -> Void) async throws {
    let facts = Facts()
    defer { facts.record() }
    try await onAThread { () throws -> Void in try body(facts) }
}

@Suite("Chapter 11: the live page", .serialized) struct WatchTests {
    // MARK: Heads

    @Test("a head is found wherever it is cut, and one that is too long is refused")
    func cuts() throws {
        let stream = Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /b HTTP/1.1\nHost: b\n\nGET".utf8)
        func frames(_ cuts: [Int]) throws -> [String] {
            let reader = FrameReader(RequestHeads())
            var found: [String] = []
            var start = 0
            for end in cuts + [stream.count] {
                try stream.span.bytes.extracting(start..<end).withUnsafeBytes { bytes in
                    try reader.read(bytes.bytes) { head in
                        found.append(head.withUnsafeBytes { String(decoding: $0, as: UTF8.self) })
                    }
                }
                start = end
            }
            #expect(reader.heldBytes == 3)
            return found
        }
        let whole = try frames([])
        #expect(
            whole == ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n", "GET /b HTTP/1.1\nHost: b\n\n"])
        for cut in 0...stream.count { #expect(try frames([cut]) == whole) }
        #expect(try frames(Array(stream.indices)) == whole)
        // As long as it may be, and one byte more.
        for (more, fits) in [(0, true), (1, false)] {
            let reader = FrameReader(RequestHeads(maximumLength: 64))
            let head = Array((String(repeating: "a", count: 60 + more) + "\r\n\r\n").utf8)
            #expect(((try? reader.read(head.span.bytes) { _ in }) != nil) == fits)
        }
    }

    @Test(
        "each kind of request has its status, and closes or does not",
        arguments: [
            ("GET / HTTP/1.1\r\nHost: localhost", 200, false),
            ("GET /?a=b HTTP/1.1\r\nHost: LOCALHOST:99", 200, false),
            ("HEAD /statistics HTTP/1.1\r\nhost:127.0.0.1:1", 200, false),
            ("GET / HTTP/1.0", 200, true), ("GET / HTTP/1.0\r\nConnection: Keep-Alive", 200, false),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: x, close", 200, true),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", 200, false),
            ("GET /none HTTP/1.1\r\nHost: localhost", 404, false),
            ("GET //statistics HTTP/1.1\r\nHost: localhost", 404, false),
            ("POST / HTTP/1.1\r\nHost: localhost", 405, false),
            ("DELETE /none HTTP/1.1\r\nHost: localhost", 405, false),
            ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5", 405, true),
            ("OPTIONS * HTTP/1.1\r\nHost: localhost", 405, false),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5", 400, true),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +0", 400, true),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked", 400, true),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400, true),
            ("GET / HTTP/1.1", 400, true),
            ("GET  / HTTP/1.1\r\nHost: localhost", 400, true),
            ("GET / HTTP/1.1\r\nHost : localhost", 400, true),
            ("GET / HTTP/1.1\r\n Host: localhost", 400, true),
            ("GET / HTTP/1.1\r\nHost: local\rhost", 400, true),
            ("GET / HTTP/1.1\r\nHost: localhost\r\nX: \0", 400, true), ("GET /", 400, true),
            ("hello", 400, true),
            ("GET / HTTP/11\r\nHost: localhost", 400, true), ("GET / http/1.1\r\nHost: localhost", 400, true),
            ("GET / HTTP/2.0\r\nHost: localhost", 505, true),
            ("GET / HTTP/1.1\r\nHost: evil.example", 421, false),
            ("GET / HTTP/1.1\r\nHost: localhost.evil.example", 421, false),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1.evil", 421, false),
            ("GET / HTTP/1.1\r\nHost: localhost:8a", 421, false),
            ("GET / HTTP/1.1\r\nHost: ", 421, false), ("GET / HTTP/1.1\r\nHost: 127.0.0.2", 421, false),
        ])
    func judged(head: String, status: Int, closes: Bool) {
        let bytes = Array((head + "\r\n\r\n").utf8)
        let reply = Reply.to(bytes.span.bytes, names: ["localhost", "127.0.0.1"])
        #expect(reply.status.number == status && reply.closes == closes, "\(head)")
    }

    // MARK: Served

    @Test("the page, the figures and the errors, on one connection", arguments: DriverKind.permitted)
    func served(driver: DriverKind) async throws {
        try await onAThread { facts in
            let watched = try Watched(driver, chunk: 64)
            let socket = try watched.client()
            func ask(_ line: String, isHead: Bool = false) throws -> Heard {
                try socket.say("\(line) HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return try #require(try Heard.next(socket, isHead: isHead))
            }
            let page = try ask("GET /")
            facts.expect(page.status == 200 && page.body == StatusPage.html)
            facts.expect(page.fields["content-type"] == "text/html; charset=utf-8")
            facts.expect(page.fields["content-security-policy"]?.contains("default-src 'none'") == true)
            facts.expect(
                page.fields["access-control-allow-origin"] == nil
                    && page.fields["date"]?.hasSuffix(" GMT") == true)
            let head = try ask("HEAD /", isHead: true)
            facts.expect(head.status == 200 && head.fields["content-length"] == page.fields["content-length"])
            let figures = try ask("GET /statistics")
            let parsed = try JSONSerialization.jsonObject(with: Data(figures.body.utf8)) as? [String: Any]
            facts.expect(figures.status == 200 && parsed?["name"] as? String == "a server")
            facts.expect(try ask("GET /none").status == 404)
            let other = try ask("PUT /")
            facts.expect(other.status == 405 && other.fields["allow"] == "GET, HEAD")
            try socket.say("\r\n")  // one line too many, as some send it
            facts.expect(try ask("GET /statistics").status == 200)
            try socket.say("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            facts.expect(try Heard.next(socket)?.status == 421)
            try socket.say("nonsense\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            facts.expect(try Heard.next(socket)?.status == 400)
            facts.expect(try Heard.next(socket) == nil)
            // Only what needs them has asked for the figures.
            facts.expect(watched.asked.value == 2)
            facts.expect(watched.stop())
        }
    }

    @Test(
        "over IPv6 the host is in brackets",
        .enabled(if: Address.loopbacks.contains(.loopback6()), "this machine has no ::1"))
    func brackets() async throws {
        try await onAThread { facts in
            let watched = try Watched(DriverKind.permitted[0], on: .any6())
            for (address, host, status) in [
                (Address.loopback6(port: watched.address.port), "[::1]:80", 200),
                (.loopback(port: watched.address.port), "127.0.0.1", 200),
                (.loopback(port: watched.address.port), "[::1]", 421),
            ] {
                let socket = try Socket.connected(to: address)
                try socket.say("GET /statistics HTTP/1.1\r\nHost: \(host)\r\n\r\n")
                facts.expect(try Heard.next(socket)?.status == status, "\(host)")
            }
            facts.expect(watched.stop())
        }
    }

    @Test(
        "a head too long is 431, one without an end 408, and a silent connection is closed",
        arguments: DriverKind.permitted)
    func limits(driver: DriverKind) async throws {
        try await onAThread { facts in
            let watched = try Watched(driver) {
                ($0.request, $0.idle) = (.milliseconds(300), .milliseconds(100))
            }
            let long = try watched.client()
            try long.say("GET / HTTP/1.1\r\nX: " + String(repeating: "a", count: 9_000) + "\r\n\r\n")
            facts.expect(try Heard.next(long)?.status == 431)
            facts.expect(long.isEnded())
            let slow = try watched.client()
            try slow.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET")
            facts.expect(try Heard.next(slow)?.status == 200)
            facts.expect(try Heard.next(slow)?.status == 408)
            facts.expect(slow.isEnded())
            let silent = try watched.client()
            facts.expect(try Heard.next(silent) == nil)
            facts.expect(watched.page.counters.answers == [431: 1, 200: 1, 408: 1])
            facts.expect(watched.stop())
        }
    }

    @Test(
        "requests sent at once are all answered, in their order, also after the client's end",
        arguments: DriverKind.permitted)
    func pipelined(driver: DriverKind) async throws {
        try await onAThread { facts in
            let watched = try Watched(driver, chunk: 512)
            let socket = try watched.client()
            let paths = (0..<300).map { ["/statistics", "/none", "/"][$0 % 3] }
            let all = paths.map { "GET \($0) HTTP/1.1\r\nHost: localhost\r\n\r\n" }.joined()
            let talker = startThread("talker") {
                try? socket.say(all)
                try? socket.shutDownSending()
            }
            for (number, path) in paths.enumerated() {
                let heard = try #require(try Heard.next(socket), "answer \(number)")
                facts.expect(heard.status == (path == "/none" ? 404 : 200))
                if path == "/" { facts.expect(heard.body == StatusPage.html) }
            }
            talker.join()
            facts.expect(try Heard.next(socket) == nil)
            facts.expect(watched.stop())
        }
    }

    @Test(
        "a client that asks again and again and does not read is not read from",
        arguments: DriverKind.permitted)
    func unread(driver: DriverKind) async throws {
        try await onAThread { facts in
            let watched = try Watched(driver)
            let socket = try watched.client()
            try socket.setBufferSizes(receive: 4096)
            let request = Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8)
            // Until its system takes no more, although it waits.
            _ = eventually {
                while (try? socket.say(request, within: .milliseconds(300))) != nil {}
                // If not, it was only slow.
                return watched.service.hub.connections.map(\.traffic.pendingSends) == [1]
            }
            // In this order: on a busy machine some may still be on their way.
            let read = watched.service.ledger.messages
            let sent = watched.page.counters.answers[200, default: 0]
            facts.expect(watched.service.hub.connections.map(\.traffic.pendingSends) == [1])
            facts.expect(read < sent + 2 * 4096 / request.count + 2)
            let other = try watched.client()
            try other.say("GET /statistics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            facts.expect(try Heard.next(other)?.status == 200)
            facts.expect(watched.stop())
        }
    }

    // MARK: Events

    @Test(
        "viewers get the same figures, and with nobody watching none are made",
        arguments: DriverKind.permitted)
    func events(driver: DriverKind) async throws {
        try await onAThread { facts in
            let watched = try Watched(driver) { $0.interval = .milliseconds(20) }
            let idle = try watched.client()
            try idle.say("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            facts.expect(try Heard.next(idle)?.status == 404)
            let rounds = Counter()
            try watched.service.hub.everyRound { _ in rounds.add() }
            try #require(eventually { rounds.value > 3 })
            facts.expect(watched.asked.value == 0)
            let viewers = try (0..<3).map { _ in try watched.client() }
            for viewer in viewers {
                try viewer.say("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\n\r\n")
                let heard = try #require(try Heard.next(viewer))
                facts.expect(
                    heard.fields["content-type"] == "text/event-stream"
                        && heard.fields["content-length"] == nil)
            }
            var seen: [Set<String>] = []
            for viewer in viewers {
                var texts: Set<String> = []
                var events = Events(viewer)
                for _ in 0..<20 { texts.insert(try events.next()) }
                facts.expect(texts.allSatisfy { $0.hasPrefix("data: {") && $0.hasSuffix("}") })
                seen.append(texts)
            }
            facts.expect(!seen[0].isDisjoint(with: seen[1]) && seen[0].count == 20)
            facts.expect(watched.page.counters.viewers == 3)
            for viewer in viewers { viewer.close() }
            try #require(eventually { watched.page.counters.viewers == 0 })
            let (last, round) = (watched.asked.value, rounds.value)
            try #require(eventually { rounds.value > round + 2 })
            facts.expect(watched.asked.value == last)
            facts.expect(watched.stop())
        }
    }

    @Test("a viewer that does not read is dropped, and another one goes on", arguments: DriverKind.permitted)
    func stalled(driver: DriverKind) async throws {
        try await onAThread { facts in
            let watched = try Watched(driver, rows: 200) {
                ($0.interval, $0.event) = (.milliseconds(20), .seconds(1))
            }
            let other = try watched.client()
            try other.say("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            facts.expect(try Heard.next(other)?.status == 200)
            var events = Events(other)
            let stalled = try watched.client()
            try stalled.setBufferSizes(receive: 4096)
            try stalled.say("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            // As long as that takes, the other one reads.
            var most = 0
            while watched.page.counters.dropped == 0 {
                facts.expect(try events.next().hasSuffix("}"))
                most = max(most, watched.service.hub.connections.map(\.traffic.pendingSends).max() ?? 0)
            }
            facts.expect(most == 1, "\(most) sends under way")
            facts.expect(stalled.isEnded())
            facts.expect(eventually { watched.page.counters.viewers == 1 })
            for _ in 0..<3 { facts.expect(try events.next().hasSuffix("}")) }
            facts.expect(watched.page.counters.dropped == 1 && watched.stop())
        }
    }

    /// Reads events, one at a time, without the empty line behind each.
    private struct Events {
        let socket: Socket
        private var held: [UInt8] = []

        init(_ socket: Socket) { self.socket = socket }

        mutating func next() throws -> String {
            let end = Array("\n\n".utf8)
            var looked = 0
            while true {
                if let place = held.dropFirst(max(0, looked - 1)).firstIndex(of: end[0]),
                    place + 1 < held.count
                {
                    let event = String(decoding: held[..<place], as: UTF8.self)
                    held.removeFirst(place + 2)
                    return event
                }
                looked = held.count
                // What is there, and one byte at least.
                let more = try socket.hearBytes(max(1, socket.unread))
                if more.isEmpty { return "" }
                held += more
            }
        }
    }

    // MARK: Text

    @Test("what clients have said is text for JSON, for HTML and for a line of an event")
    func hostile() throws {
        let words = "\"}]\\</script><b>\n\ndata: x\r\u{0}\u{7f}\u{2028}é\u{1F600}&amp;"
        let figures: JSON = [
            "name": .text(words), "lines": .list([.text(words)]),
            "rows": .list([["id": .text(words), "file": ["name": .text(words), "done": .number(-3)]]]),
            "workers": .object([(words, .number(5))]),
        ]
        let json = "\(figures)"
        #expect(
            json.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0 != "<" && $0 != ">" && $0 != "\u{2028}" })
        let parsed = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
        #expect(parsed["name"] as? String == words && parsed["lines"] as? [String] == [words])
        let row = try #require((parsed["rows"] as? [[String: Any]])?.first)
        #expect(row["id"] as? String == words && (row["file"] as? [String: Any])?["name"] as? String == words)
        #expect((parsed["workers"] as? [String: Int]) == [words: 5])
        // The page sets it as text, in every place.
        for word in [
            "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "http://", "https://",
        ] {
            #expect(!StatusPage.html.contains(word), "\(word)")
        }
    }

    @Test(
        "curl gets the page, the figures and the events",
        .enabled(if: access("/usr/bin/curl", X_OK) == 0, "curl is not installed"),
        arguments: DriverKind.permitted)
    func curl(driver: DriverKind) async throws {
        try await onAThread { facts in
            let watched = try Watched(driver) { $0.interval = .milliseconds(20) }
            let place = "http://\(watched.address)"
            // Two with one connection, which curl keeps.
            let both = try Child.run(
                "/usr/bin/curl", ["-sS", "-w", "%{num_connects}\n", "\(place)/statistics", "\(place)/"],
                within: .seconds(20))
            facts.expect(
                both.status == 0 && both.output.contains("}\n1\n") && both.output.hasSuffix("</html>\n0\n"),
                "\(both.words)")
            let events = try Child.run(
                "/usr/bin/curl", ["-sSN", "--max-time", "1", "\(place)/events"], within: .seconds(20))
            facts.expect(
                events.status == 28 && events.output.components(separatedBy: "data: ").count > 2,
                "\(events.words)")
            let posted = try Child.run(
                "/usr/bin/curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", "x=1", "\(place)/"],
                within: .seconds(20))
            facts.expect(posted.output == "405")
            facts.expect(watched.stop())
        }
    }
}
