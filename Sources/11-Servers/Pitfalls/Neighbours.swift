import CKernel
import Glibc
import Kernel
import Servers
import Stage

/// Honest clients, each of which says something every 10 ms: alone on a server, and beside neighbours who take what they can get.
public enum Neighbours {
    /// What the honest ones have met, and what was wrong.
    public struct Report: Sendable {
        /// How long answers took, from the moment at which the question was due.
        public fileprivate(set) var alone = LatencyHistogram(), beside = LatencyHistogram()
        /// In words; empty when all is well.
        public fileprivate(set) var faults: [String] = []
    }

    private static let honest = 20
    private static let interval: UInt64 = 10_000_000
    private static let patience = Duration.seconds(20)

    /// Runs them for some time alone, and for some time beside a flooder, a slow reader, a client that says nothing, an address
    /// that has all the connections that it may have and wants one more, and one that is banned and comes again and again.
    public static func run(_ driver: DriverKind, ofOneAddress most: Int = 500, for time: Duration) throws
        -> Report
    {
        let program = Program()
        program.onReceived = { message, session in
            // One kind asks for an answer of its own each; the others are answered together.
            if message.first == flooding {
                try? session.send(message.span.bytes)
            } else {
                try? session.reply(message.span.bytes)
            }
        }
        program.onConnected = { session in
            try? session.socket?.setBufferSizes(send: 65_536)
            // Only one of them has to fear the limit, however slow the machine is.
            if session.address?.host != silent { session.welcome() }
        }
        let server = try startServer(driver, program) {
            $0.endpoint.maximumPerAddress = most
            $0.endpoint.bans.add(AddressRange("127.0.0.3")!)
            $0.endpoint.refusal = .reset
            $0.endpoint.limits.handshake = .milliseconds(100)
        }
        let address = server.address!
        var report = Report()
        let friends = try (0..<honest).map { try PlainClient(to: address, from: "127.0.1.\($0 + 1)") }
        guard friends.allSatisfy({ $0.isEchoed() }) else { throw SystemError.closed("be answered") }
        report.alone = talk(friends, for: time)

        let crowd = try (0..<most).map { _ in try PlainClient(to: address, from: "127.0.0.2") }
        if !crowd.allSatisfy({ $0.isEchoed() }) { report.faults.append("one of the crowd is not served") }
        let (isOver, whole) = (Gate(), Counter())
        var busy = [false, true].map { reads in
            startThread(reads ? "slow reader" : "flooder") {
                if flood(address, reads: reads, until: isOver) { whole.add() }
            }
        }
        let comers: [(name: String, from: String)] = [
            ("silent", silent), ("one more", "127.0.0.2"), ("banned", "127.0.0.3"),
        ]
        busy += comers.map { name, from in
            startThread(name) {
                repeat {
                    guard let client = try? PlainClient(to: address, from: from) else { continue }
                    _ = client.socket.isEnded(within: patience)
                    client.socket.close()
                } while !isOver.pass(within: .milliseconds(10))
            }
        }
        if !eventually({ server.statistics.pauses >= 2 }) {
            report.faults.append("the flooder and the slow reader are not paused")
        }
        report.beside = talk(friends, for: time)
        _ = eventually { [.banned, .perAddress].allSatisfy { (server.statistics.refused[$0] ?? 0) > 0 } }
        _ = eventually { server.statistics.ends[.timedOut(.handshake)] ?? 0 > 0 }
        isOver.open()
        for thread in busy { thread.join() }

        let last = server.statistics
        if whole.value != 2 { report.faults.append("something of a flood was dropped") }
        if (last.refused[.banned] ?? 0) == 0 { report.faults.append("the banned one was not refused") }
        if (last.refused[.perAddress] ?? 0) == 0 { report.faults.append("one address had more than it may") }
        if (last.ends[.timedOut(.handshake)] ?? 0) == 0 {
            report.faults.append("the silent one was not ended")
        }
        let asked = report.alone.count + report.beside.count
        if report.alone.count % honest + report.beside.count % honest != 0 || asked == 0 {
            report.faults.append("an honest one was not answered")
        }
        for client in friends + crowd { try? client.socket.abort() }
        if try !server.stop(within: .seconds(5)).isQuiet { report.faults.append("something is left") }
        return report
    }

    private static let silent = "127.0.0.4"
    private static let flooding = UInt8(ascii: "!")

    /// A question of each every 10 ms, one behind the other. Who is late is late for the others, too: nothing is left out. When
    /// one is not answered the talk is over.
    private static func talk(_ clients: [PlainClient], for time: Duration) -> LatencyHistogram {
        var latency = LatencyHistogram()
        let rounds = max(1, Int(time / .nanoseconds(Int64(interval))))
        var due = monotonicNanoseconds()
        for _ in 0..<rounds {
            for client in clients {
                due += interval / UInt64(honest)
                let now = monotonicNanoseconds()
                if now < due { usleep(UInt32((due - now) / 1_000)) }
                guard client.isEchoed("a question", within: patience) else { return latency }
                latency.add(nanoseconds: Int(monotonicNanoseconds()) - Int(due))
            }
        }
        return latency
    }

    /// Sends four megabytes, and reads nothing, or a little now and then, until the others are done. Whether all of it came back
    /// in the end.
    private static func flood(_ address: Address, reads: Bool, until isOver: Gate) -> Bool {
        guard let client = try? PlainClient(to: address) else { return false }
        try? client.socket.setBufferSizes(receive: 65_536)
        let frames = (0..<2_000).flatMap { number in
            PlainClient.frame(
                [flooding] + [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 2_000))
        }
        let writer = startThread("writer") { try? client.socket.say(frames, within: .seconds(3_600)) }
        var back: [UInt8] = []
        while !isOver.pass(within: .milliseconds(10)) {
            if reads { back += (try? client.socket.hearBytes(1_000, within: patience)) ?? [] }
        }
        back += (try? client.socket.hearBytes(frames.count - back.count, within: patience)) ?? []
        // A writer that is held back is let go.
        if back.count < frames.count { _ = shutdown(client.socket.descriptor, Int32(SHUT_RDWR)) }
        writer.join()
        try? client.socket.abort()
        return back == frames
    }
}
