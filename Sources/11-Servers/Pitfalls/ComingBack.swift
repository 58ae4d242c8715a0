import Contexts
import Framing
import Glibc
import Kernel
import Reordering
import Servers
import Stage

/// The server goes, and comes back.
public enum ConnectWithoutReconnect {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "connect-without-reconnect", title: "the server is restarted, and its client never comes back",
        broken: { driver in
            let server = try startServer(driver)
            let address = server.address!
            let over = Counter()
            let hub = try startHub(driver)
            try hub.connect(to: address, handler: StreamProgram(closed: { _ in over.add() }))
            _ = eventually { server.connectionCount == 1 }
            try server.stop(within: .zero)
            _ = eventually { over.value == 1 }
            // The same port: its clients would find it.
            let again = try startServer(driver) { $0.addresses = [address] }
            let other = try PlainClient(to: address).isEchoed()
            let accepted = again.statistics.accepted
            hub.stop()
            try again.stop(within: .zero)
            return Observation(
                happened: other && accepted == 1,
                lines: [
                    "the client has heard of the end, and that was all",
                    "the new server is up, and has seen \(accepted) client: another one",
                ])
        },
        fixed: { driver in
            let heard = Guarded<[String]>([])
            let program = Program()
            program.onReceived = { message, _ in
                heard.locked { $0.append(String(decoding: message, as: UTF8.self)) }
            }
            let server = try startServer(driver, program)
            let address = server.address!
            let ears = Program()
            let delays = Guarded<[Duration]>([])
            ears.onReconnecting = { _, _, pause in delays.locked { $0.append(pause) } }
            var policy = Reconnection()
            (policy.first, policy.longest, policy.seed) = (.milliseconds(5), .milliseconds(40), 11)
            let client = try startClient(driver, to: address, ears) { $0.link.reconnection = policy }
            let link = client.links[0]
            _ = eventually { link.session != nil }
            try server.stop(within: .zero)
            // Some attempts find nobody.
            _ = eventually { delays.locked { $0.count } >= 4 }
            try link.send(Array("said while apart".utf8).span.bytes)
            let again = Server(
                {
                    var o = ServerOptions(); o.addresses = [address]; o.endpoint.port.driver = driver;
                    return o
                }(), handler: program)
            try again.start()
            let isBack = eventually { heard.locked { $0 } == ["said while apart"] }
            let planned = delays.locked { $0 }
            let isPlanned = isPlanned(planned, policy)
            let reconnects = client.statistics.reconnects
            let last = try client.stop()
            try again.stop()
            return Observation(
                happened: !isBack || !isPlanned || reconnects == 0 || !last.isQuiet,
                lines: [
                    "pauses: \(planned.map { "\(Int($0 / .milliseconds(1))) ms" }.joined(separator: ", ")); as planned: \(isPlanned)",
                    "back, and what was said while apart arrives once: \(isBack)",
                ])
        })
}

/// Whether pauses are those of a policy. An attempt may still find the server that is about to stop: then a connection stood for a
/// moment, and the next pause is a first one again.
private func isPlanned(_ pauses: [Duration], _ policy: Reconnection) -> Bool {
    var plan = Pauses(policy)
    return pauses.allSatisfy { pause in
        var afresh = plan
        afresh.begin()
        if plan.next() == pause { return true }
        plan = afresh
        return plan.next() == pause
    }
}

/// The pause before the next attempt is slept through.
public enum ReconnectOnTheIOWorker {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "reconnect-on-the-io-worker",
        title: "the client sleeps on an I/O worker before it connects again",
        broken: { driver in
            let server = try startServer(driver)
            let (asleep, awake, answered) = (Gate(), Gate(), Gate())
            let hub = try startHub(driver, workers: 1) { $0.concurrency = 1 }
            defer { awake.open() }
            let other = try hub.connect(
                to: server.address!, handler: StreamProgram(received: { _, _ in answered.open() }))
            let lost = try hub.connect(
                to: server.address!,
                handler: StreamProgram(closed: { _ in
                    // ⚠︎ Broken on purpose: the gate stands for the pause.
                    asleep.open()
                    awake.pass()
                }))
            _ = eventually { other.traffic.since > 0 && lost.traffic.since > 0 }
            lost.close()
            let sleeps = asleep.pass()
            try? other.send(PlainClient.frame(Array("hello".utf8)))
            let isAnswered = answered.pass(within: .milliseconds(500))
            awake.open()
            let later = answered.pass()
            hub.stop()
            try server.stop(within: .zero)
            return Observation(
                happened: sleeps && !isAnswered && later,
                lines: [
                    "while the worker sleeps the other connection hears nothing: \(!isAnswered)",
                    "then it does: \(later)",
                ])
        },
        fixed: { driver in
            let server = try startServer(driver)
            let program = Program()
            let (answered, pausing) = (Gate(), Gate())
            program.onReceived = { _, _ in answered.open() }
            program.onReconnecting = { _, _, _ in pausing.open() }
            let client = try startClient(driver, to: server.address!, program) {
                $0.endpoint.ioWorkers = 1
                $0.endpoint.concurrency = 1
                $0.link.reconnection?.first = .seconds(60)
                $0.link.reconnection?.longest = .seconds(60)
            }
            let other = try client.connect(to: server.address!)
            _ = eventually { client.links.allSatisfy { $0.session != nil } }
            client.links[0].session?.disconnect(.abortive)
            let isPausing = pausing.pass()
            try other.send(Array("hello".utf8).span.bytes)
            let isAnswered = answered.pass()
            let last = try client.stop()
            try server.stop(within: .zero)
            return Observation(
                happened: !isPausing || !isAnswered || !last.isQuiet,
                lines: [
                    "one link pauses for a minute, a timer's; the other is answered: \(isAnswered)",
                    "stop does not wait for the timer",
                ])
        })
}

/// A connection that does not come about keeps its socket.
public enum FailedConnectLeaksSocket {
    static let count = 100

    /// For the demo and the tests. Descriptors are the whole process's: the tests run both halves in one of its own.
    public static let pitfall = Pitfall(
        slug: "failed-connect-leaks-socket", title: "every connect that fails leaves a descriptor behind",
        broken: { _ in
            let address = try closedPort()
            Resources.settle()
            let before = Resources.openDescriptors
            // ⚠︎ Broken on purpose: the socket is made first, and nobody closes it when the connect fails.
            var descriptors: [Int32] = []
            for _ in 0..<count {
                let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                descriptors.append(descriptor)
                var system = sockaddr_in()
                system.sin_family = sa_family_t(AF_INET)
                system.sin_port = address.port.bigEndian
                system.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
                _ = withUnsafePointer(to: &system) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                    }
                }
            }
            let left = Resources.openDescriptors - before
            for descriptor in descriptors { close(descriptor) }
            return Observation(
                happened: left >= count, lines: ["\(count) attempts, \(left) descriptors more"])
        },
        fixed: { driver in
            let address = try closedPort()
            let (program, attempts) = (Program(), Counter())
            program.onReconnecting = { _, _, _ in attempts.add() }
            let client = try startClient(driver, to: address, program) {
                $0.link.reconnection?.first = .milliseconds(1)
                $0.link.reconnection?.longest = .milliseconds(1)
            }
            _ = eventually { attempts.value > 3 }
            // Attempts go on meanwhile: so it does not wait until the number stays the same.
            let (before, first) = (Resources.openDescriptors, attempts.value)
            let isTried = eventually(within: .seconds(30)) { attempts.value >= first + count }
            client.links[0].disconnect()
            let isBack = eventually {
                Resources.openDescriptors <= before && client.statistics.connections == 0
            }
            let last = try client.stop()
            return Observation(
                happened: !isTried || !isBack || !last.isQuiet,
                lines: ["\(attempts.value) attempts, no descriptor more: \(isBack)"])
        })

    /// An address where nobody listens.
    private static func closedPort() throws -> Address {
        let listener = try Socket.listener(on: .loopback())
        defer { listener.close() }
        return try listener.localAddress
    }
}
