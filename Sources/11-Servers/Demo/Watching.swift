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

    /// A text that a client has sent, to be shown among the last ones.
    func note(_ line: String) {
        lines.locked { lines in
            lines.append(line)
            if lines.count > WatchStatistics.lineLimit { lines.removeFirst() }
        }
    }

    /// What the page shows, now.
    var figures: WatchStatistics {
        let now = endpoint.statistics
        var shown = WatchStatistics(name: name)
        shown.milliseconds = monotonicNanoseconds() / 1_000_000
        shown.messages = now.messagesIn + now.messagesOut
        shown.bytes = now.bytesIn + now.bytesOut
        (shown.connections, shown.peak) = (now.connections, now.peak)
        shown.rows = endpoint.sessions.prefix(WatchStatistics.rowLimit).map { row($0.statistics) }
        shown.lines = lines.locked { $0 }
        if let port = endpoint.port {
            let ((running, waiting), inDriver) = (port.workers, port.workersInDriver)
            shown.workers = [
                .init("running", running), .init("in the driver", inDriver),
                .init("parked", max(0, waiting - inDriver)),
                .init("blocked", max(0, endpoint.options.ioWorkers - running - waiting)),
            ]
            shown.groups.append(
                .init(
                    "Port",
                    [
                        .init("packets waiting", port.queuedPackets),
                        .init("reads pending", now.pendingReads),
                        .init("accepts pending", now.accepts.pending),
                        .init("sends pending", now.pendingSends), .init("sessions paused", now.paused),
                    ]))
        }
        shown.groups.append(
            .init(
                "Memory, \(now.mode)",
                [
                    .init("chunks in use", now.chunks?.inUse ?? 0),
                    .init("chunks free", now.chunks?.free ?? 0),
                    .init("pages locked", now.pages?.locked ?? 0), .init("most pages", now.pages?.peak ?? 0),
                ]))
        if let jobs = now.jobs {
            shown.groups.append(
                .init(
                    "Jobs",
                    [
                        .init("waiting", jobs.waiting), .init("running", jobs.running),
                        .init("done", jobs.done),
                        .init("workers", jobs.workers),
                    ]))
        }
        shown.groups.append(
            .init(
                "Files",
                [
                    .init("under way", now.filesUnderWay), .init("done", now.filesDone),
                    .init("failed", now.filesFailed),
                ]))
        shown.groups.append(.init("Refused", named(now.refused) { $0.rawValue }))
        shown.groups.append(.init("Ended", named(now.ends) { $0.description }))
        return shown
    }

    private func named<Key: Hashable>(_ counts: [Key: Int], _ name: (Key) -> String) -> [WatchStatistics
        .Figure]
    {
        let figures = counts.map { WatchStatistics.Figure(name($0.key), $0.value) }.sorted {
            $0.name < $1.name
        }
        return figures.isEmpty ? [.init("none", 0)] : figures
    }

    private func row(_ session: SessionStatistics) -> WatchStatistics.Row {
        let state =
            session.ending.map { "ending: \($0)" }
            ?? (session.isPaused
                ? "paused"
                : session.file == nil
                    ? "open" : session.isSendingFile ? "sending a file" : "receiving a file")
        return WatchStatistics.Row(
            id: session.id.map { "\($0)" } ?? "", address: session.address?.unmapped.description ?? "",
            state: state,
            messages: session.messagesIn + session.messagesOut, bytes: session.bytesIn + session.bytesOut,
            file: session.file.map { .init(name: $0.name, done: $0.bytes, size: $0.total) })
    }
}
