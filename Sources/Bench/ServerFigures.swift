import CKernel
import Glibc
import Kernel
import Servers
import ServersPitfalls
import Stage

/// What a whole server does for those who behave, beside those who do not and among those who say nothing (chapter 11).
enum ServerFigures {
    private static let idle = 15_000
    private static let busy = 64

    static func measure(seconds: Double, into figures: inout Figures) throws {
        for driver in DriverKind.permitted {
            let report = try Neighbours.run(driver, for: .seconds(seconds))
            guard report.faults.isEmpty else {
                throw SystemError.invalid("serve beside bad neighbours: \(report.faults)")
            }
            let alone = report.alone.percentile(99) / .microseconds(1)
            figures.add("\(driver): honest clients alone, p99", "µs", alone)
            figures.add(
                "\(driver): beside bad neighbours, p99", "µs", report.beside.percentile(99) / .microseconds(1)
            )
            figures.add("\(driver): twice that or 5 ms", "µs", max(2 * alone, 5_000))
            try measureIdle(driver, seconds, &figures)
        }
    }

    /// A server whose clients may be silent for as long as they like.
    private static func measureIdle(_ driver: DriverKind, _ seconds: Double, _ figures: inout Figures) throws
    {
        let count = Resources.clientsThatFit(idle, descriptorsEach: 1)
        let server = try startServer(driver, Answering()) {
            $0.endpoint.maximumConnections = count + 2 * busy
            $0.endpoint.limits.handshake = nil
            $0.endpoint.log = .none
        }
        var load = ClientLoad(to: server.address!, connections: busy, duration: .seconds(seconds))
        load.framesEach = 1
        _ = try load.run()
        let alone = try load.run().perSecond
        let clients = try IdleConnections.clients(to: server.address!, count)
        defer { clients.send(signal: SIGKILL) }
        guard eventually(within: .seconds(60), { server.connectionCount >= count }) else {
            throw SystemError(ETIMEDOUT, attempted: "let \(count) clients in")
        }
        let among = try load.run().perSecond
        clients.send(signal: SIGKILL)
        guard try server.stop(within: .zero).isQuiet else {
            throw SystemError.invalid("stop a server of \(count) connections: something is left")
        }
        figures.add("\(driver): \(busy) busy connections alone", "round trips/s", alone)
        figures.add("\(driver): among \(readable(idle)) idle ones", "round trips/s", among)
    }

    static func compare(_ figures: inout Figures) {
        for driver in DriverKind.permitted {
            figures.compare(
                "\(driver): beside bad neighbours, p99", to: "\(driver): twice that or 5 ms", .atMost(1))
            figures.compare(
                "\(driver): among \(readable(idle)) idle ones",
                to: "\(driver): \(busy) busy connections alone",
                .atLeast(0.9))
        }
    }
}

private final class Answering: EndpointHandler {
    func received(_ message: RawSpan, _ session: Session) { try? session.reply(message) }
}
