import Framing
import Glibc
import Kernel
import Reordering
import Contexts

/// A server's figures for browsers: a page, its figures as JSON, and events that bring them twice a second. Any number of
/// connections share it; each gets a handler from it.
///
/// It asks for the figures when a request or an event needs them, and never otherwise: with nobody watching it costs nothing. All
/// viewers of an event share one text.
public final class StatusPage: Sendable {
    /// Names and limits.
    public struct Options: Sendable {
        /// Names under which browsers may ask, beside `localhost` and the address they have come to.
        public var names: [String] = []
        /// How long a request may take from its first byte to its last; then it is answered with 408.
        public var request = Duration.seconds(10)
        /// How long a connection may wait between two requests; then it is closed.
        public var idle = Duration.seconds(60)
        /// How long a viewer may take to take an event; then it is reset.
        public var event = Duration.seconds(5)
        /// How long after the last answer the other side may take to close.
        public var closing = Duration.seconds(2)
        /// From one event to the next, if the clock comes by often enough.
        public var interval = Duration.milliseconds(500)

        /// The defaults.
        public init() {}
    }

    /// What has been asked so far.
    public struct Counters: Sendable, Equatable {
        /// Answers, by their number.
        public internal(set) var answers: [Int: Int] = [:]
        /// Viewers of events now, and those that were reset since they did not read.
        public internal(set) var viewers = 0, dropped = 0
    }

    let options: Options
    private let figures: @Sendable () -> JSON
    private let state = Guarded(State())

    private struct State {
        var counters = Counters()
        var round: UInt64 = 0
        var event: SharedBytes?
    }

    /// A page of these figures.
    ///
    /// - Parameter figures: What the page shows now. Asked on an I/O worker, or on the clock that calls the handlers' `tick`; it is
    ///   not to block, and is to have a bound, since each viewer gets it twice a second. An object of which nothing has to be
    ///   there: `name`; `milliseconds` on a clock, and the totals `messages` and `bytes`, from which the page makes rates;
    ///   `connections` and `peak`; `workers`, an object of numbers; `groups`, a list of objects with a `name` and `figures`, an object
    ///   of numbers; `rows`, one for each connection that is shown: `id`, `address`, `state`, `messages`, `bytes`, and perhaps a
    ///   `file` with `name`, `done` and `size`; and `lines`, the last texts.
    public init(_ options: Options = Options(), figures: @escaping @Sendable () -> JSON) {
        (self.options, self.figures) = (options, figures)
    }

    /// A handler for one connection, which speaks in ``RequestHeads``.
    public func handler() -> any FrameHandler<RequestHeads> { Visitor(self) }

    /// What has been asked so far.
    public var counters: Counters { state.locked { $0.counters } }

    func count(_ change: (inout Counters) -> Void) { state.locked { change(&$0.counters) } }

    /// The hosts that this server is, to a client that has come to that address.
    func names(at local: Address?) -> [String] {
        let plain = local?.unmapped
        return ["localhost"] + (plain.map { [$0.isIPv6 ? "[\($0.host)]" : $0.host] } ?? [])
            + options.names.map { $0.lowercased() }
    }

    // MARK: Texts

    /// The event of this round of the clock: the first viewer whose turn it is asks for the figures, the others get the same.
    func event(_ round: UInt64) -> SharedBytes {
        if let made = state.locked({ $0.round == round ? $0.event : nil }) { return made }
        let event = shared("data: \(figures())\n\n")
        state.locked {
            $0.round = round
            $0.event = event
        }
        return event
    }

    /// A whole answer. For `/events` it is the beginning of one, which only the connection's end ends.
    func answer(_ reply: Reply) -> SharedBytes {
        count { $0.answers[reply.status.number, default: 0] += 1 }
        var fields: [String] = []
        var body = ""
        switch (reply.status, reply.path) {
        case (.ok, "/"):
            fields.append("Content-Type: text/html; charset=utf-8")
            fields.append("Content-Security-Policy: \(StatusPage.policy)")
            body = StatusPage.html
        case (.ok, "/statistics"):
            fields.append("Content-Type: application/json")
            body = "\(figures())\n"
        case (.ok, _): fields.append("Content-Type: text/event-stream")
        default:
            fields.append("Content-Type: text/plain; charset=utf-8")
            if reply.status == .notAllowed { fields.append("Allow: GET, HEAD") }
            body = "\(reply.status.number) \(reply.status.words)\n"
        }
        if reply.path != "/events" { fields.append("Content-Length: \(body.utf8.count)") }
        fields.append("Connection: \(reply.closes ? "close" : "keep-alive")")
        let head = """
            HTTP/1.1 \(reply.status.number) \(reply.status.words)\r
            Date: \(now())\r
            Cache-Control: no-store\r
            X-Content-Type-Options: nosniff\r
            \(fields.joined(separator: "\r\n"))\r
            \r\n
            """
        return shared(reply.isHead ? head : head + body)
    }

    private func shared(_ text: String) -> SharedBytes {
        var text = text
        return text.withUTF8 { SharedBytes(UnsafeRawBufferPointer($0)) }
    }

    /// What the page may do: nothing but what is written in it, and ask this server.
    private static let policy = """
        default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
        base-uri 'none'; form-action 'none'; frame-ancestors 'none'
        """

    /// As HTTP has dates: `Sun, 06 Nov 1994 08:49:37 GMT`.
    private func now() -> String {
        var (seconds, parts) = (time(nil), tm())
        gmtime_r(&seconds, &parts)
        // The names are English ones: no program of this book sets a locale.
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { text in
            let count = strftime(text.baseAddress!, text.count, "%a, %d %b %Y %H:%M:%S GMT", &parts)
            return String(decoding: text[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
        }
    }
}

/// How a request is to be answered. Small, so that many may wait.
struct Reply: Sendable {
    var status: Status
    /// Of those that there are; empty for an error.
    var path = ""
    var isHead = false
    var closes = false

    var isStream: Bool { path == "/events" && !isHead }

    /// The answer to a request that is none.
    init(_ status: Status) { (self.status, closes) = (status, true) }

    /// The answer to a head that came to a server of these names.
    static func to(_ head: RawSpan, names: [String]) -> Reply {
        do throws(Status) {
            let request = try Request(head)
            var reply = Reply(request.judged(for: names))
            reply.path = reply.status == .ok ? request.path : ""
            reply.isHead = request.method == "HEAD"
            reply.closes = request.closes || request.hasBody || reply.path == "/events"
            return reply
        } catch {
            return Reply(error)
        }
    }
}
