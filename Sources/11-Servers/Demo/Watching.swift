import CompletionPorts
import Contexts
import Kernel
import Servers
import Stage
import Watch

/// The page of an endpoint: for browsers, beside its sessions.
final class Watching: Sendable {
    private let name: String
    private let lines = Guarded<[String]>([])
    private let endpoint: Endpoint

    init(_ endpoint: Endpoint, name: String) { (self.endpoint, self.name) = (endpoint, name) }

    /// Keeps the page up there from now on, until the endpoint stops.
    ///
    /// - Returns: The address, with the port that was free.
    func start(on address: Address) throws -> Address {
        let page = StatusPage { self.figures }
        return try endpoint.listen(on: address, codec: RequestHeads()) { page.handler() }
    }

    /// Connections and texts that are shown at most: what is sent twice a second has a bound.
    static let (rowLimit, lineLimit) = (200, 20)

    /// A text that a client has sent, to be shown among the last ones.
    func note(_ line: String) {
        lines.locked { lines in
            lines.append(line)
            if lines.count > Watching.lineLimit { lines.removeFirst() }
        }
    }

    /// What the page shows, now.
    var figures: JSON {
        let now = endpoint.statistics
        var workers: JSON = [:]
        var groups: [JSON] = []
        if let port = endpoint.port {
            let ((running, waiting), inDriver) = (port.workers, port.workersInDriver)
            workers = numbers([
                ("running", running), ("in the driver", inDriver), ("parked", max(0, waiting - inDriver)),
                ("blocked", max(0, endpoint.options.ioWorkers - running - waiting)),
            ])
            groups.append(
                group(
                    "Port",
                    [
                        ("packets waiting", port.queuedPackets), ("reads pending", now.pendingReads),
                        ("accepts pending", now.accepts.reduce(0) { $0 + $1.pending }),
                        ("sends pending", now.pendingSends), ("sessions paused", now.paused),
                    ]))
        }
        groups.append(
            group(
                "Memory, \(now.mode)",
                [
                    ("chunks in use", now.chunks?.inUse ?? 0), ("chunks free", now.chunks?.free ?? 0),
                    ("pages locked", now.pages?.locked ?? 0), ("most pages", now.pages?.peak ?? 0),
                ]))
        if let jobs = now.jobs {
            groups.append(
                group(
                    "Jobs",
                    [
                        ("waiting", jobs.waiting), ("running", jobs.running), ("done", jobs.done),
                        ("workers", jobs.workers),
                    ]))
        }
        groups += [
            group(
                "Files",
                [
                    ("under way", now.filesUnderWay), ("done", now.filesDone), ("failed", now.filesFailed),
                ]),
            group("Refused", now.refused.map { ($0.key.rawValue, $0.value) }.sorted { $0.0 < $1.0 }),
            group("Ended", now.ends.map { ($0.key.description, $0.value) }.sorted { $0.0 < $1.0 }),
        ]
        return [
            "name": .text(name), "milliseconds": .number(Int(monotonicNanoseconds() / 1_000_000)),
            "messages": .number(now.messagesIn + now.messagesOut),
            "bytes": .number(now.bytesIn + now.bytesOut),
            "connections": .number(now.connections), "peak": .number(now.peak), "workers": workers,
            "groups": .list(groups),
            "rows": .list(endpoint.sessions.prefix(Watching.rowLimit).map { row($0.statistics) }),
            "lines": .list(lines.locked { $0 }.map { .text($0) }),
        ]
    }

    private func numbers(_ figures: [(String, Int)]) -> JSON {
        .object(figures.map { (name: $0, value: .number($1)) })
    }

    private func group(_ name: String, _ figures: [(String, Int)]) -> JSON {
        ["name": .text(name), "figures": numbers(figures.isEmpty ? [("none", 0)] : figures)]
    }

    private func row(_ session: SessionStatistics) -> JSON {
        let work = session.file.map { $0.isSending ? "sending a file" : "receiving a file" } ?? "open"
        let state = session.ending.map { "ending: \($0)" } ?? (session.isPaused ? "paused" : work)
        var row: [(name: String, value: JSON)] = [
            ("id", .text(session.id.map { "\($0)" } ?? "")),
            ("address", .text(session.address?.unmapped.description ?? "")), ("state", .text(state)),
            ("messages", .number(session.messagesIn + session.messagesOut)),
            ("bytes", .number(session.bytesIn + session.bytesOut)),
        ]
        if let file = session.file {
            row.append(
                (
                    "file",
                    ["name": .text(file.name), "done": .number(file.bytes), "size": .number(file.total)]
                ))
        }
        return .object(row)
    }
}
