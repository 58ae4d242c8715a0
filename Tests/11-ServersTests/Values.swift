import Contexts
import Kernel
import Stage
import Testing

@testable import Servers

@Suite("Chapter 11: values")
struct Chapter11ServersValues {
    private func milliseconds(_ count: UInt64) -> UInt64 { count * 1_000_000 }

    // I11.6
    @Test(
        "each limit of a session begins where it says, and the time in which this side does not read is not held against it"
    )
    func sessionClock() {
        var limits = Limits()
        (limits.handshake, limits.idle, limits.message, limits.stall) = (
            .milliseconds(100), .milliseconds(200), .milliseconds(50), .milliseconds(300)
        )
        limits.close = .milliseconds(80)
        var view = SessionClock.View()
        var clock = SessionClock(milliseconds(1_000))
        #expect(clock.judge(milliseconds(1_099), view, limits) == nil)
        #expect(clock.judge(milliseconds(1_100), view, limits) == .handshake)
        view.isWelcome = true
        view.heard = milliseconds(1_100)
        #expect(clock.judge(milliseconds(1_299), view, limits) == nil)
        #expect(clock.judge(milliseconds(1_300), view, limits) == .idle)
        view.frameBegan = milliseconds(1_300)
        view.heard = milliseconds(1_345)
        #expect(clock.judge(milliseconds(1_349), view, limits) == nil)
        #expect(clock.judge(milliseconds(1_350), view, limits) == .message)
        // Not read from: neither the half message nor the silence counts.
        view.isPaused = true
        #expect(clock.judge(milliseconds(2_000), view, limits) == nil)
        view.isPaused = false
        #expect(clock.judge(milliseconds(2_049), view, limits) == nil)
        #expect(clock.judge(milliseconds(2_050), view, limits) == .message)
        // What is to be sent moves now and then.
        view.isSending = true
        view.frameBegan = 0
        #expect(clock.judge(milliseconds(2_100), view, limits) == nil)
        view.acknowledged = 1
        #expect(clock.judge(milliseconds(2_300), view, limits) == nil)
        #expect(clock.judge(milliseconds(2_599), view, limits) == nil)
        #expect(clock.judge(milliseconds(2_600), view, limits) == .stall)
        // The end is waited for from the last byte on.
        view.isSending = false
        view.isFinishing = true
        #expect(clock.judge(milliseconds(2_700), view, limits) == nil)
        view.acknowledged = 2
        #expect(clock.judge(milliseconds(2_779), view, limits) == nil)
        #expect(clock.judge(milliseconds(2_850), view, limits) == nil)
        #expect(clock.judge(milliseconds(2_859), view, limits) == .close)
    }

    // I11.8
    @Test(
        "pauses grow to the longest, stay within their jitter, end with the attempts, and are the same for a seed"
    )
    func pauses() {
        var policy = Reconnection()
        (policy.first, policy.factor, policy.longest, policy.jitter, policy.attempts, policy.seed) = (
            .milliseconds(100), 2, .seconds(1), 0.5, 8, 3
        )
        var (one, other) = (Pauses(policy), Pauses(policy))
        let all = (0..<8).map { _ in one.next() }
        #expect(all == (0..<8).map { _ in other.next() })
        for (index, pause) in all.enumerated() {
            let middle = min(100.0 * Double(1 << index), 1_000)
            #expect((middle / 2...middle * 1.5).contains(pause! / .milliseconds(1)))
        }
        #expect(one.next() == nil)
        one.begin()
        #expect(one.next()! <= .milliseconds(150))
        policy.jitter = 0
        var plain = Pauses(policy)
        #expect(
            (0..<3).map { _ in plain.next()! } == [
                .milliseconds(100), .milliseconds(200), .milliseconds(400),
            ])
    }

    // I11.7
    @Test("a message that comes twice is new once, of each sender, whatever order its numbers come in")
    func seen() {
        var seen = SeenMessages(maximumSenders: 2)
        func isNew(_ number: UInt64, _ sender: UInt64) -> Bool { seen.isNew(number, of: sender) }
        #expect([isNew(1, 1), isNew(3, 1), isNew(2, 1), isNew(1, 2)] == [true, true, true, true])
        #expect([isNew(1, 1), isNew(3, 1), isNew(2, 1)] == [false, false, false])
        let others = (4...5_000).count { isNew(UInt64($0), 1) }
        #expect(others == 4_997)
        #expect([isNew(5_000 - 1_023, 1), isNew(7, 1)] == [false, false])
        // A third sender: the one not heard of for longest goes.
        #expect([isNew(1, 3), isNew(5_000, 1), isNew(1, 2)] == [true, false, true])
    }

    @Test("addresses are counted by machine, and by IPv4 whichever listener they come to")
    func addressLimits() {
        var limits = AddressLimits(limit: 2)
        func enters(_ host: String) -> Bool { limits.enter(Address(host, port: 1)!) }
        #expect(
            [enters("10.0.0.1"), enters("::ffff:10.0.0.1"), enters("10.0.0.1"), enters("10.0.0.2")] == [
                true, true, false, true,
            ])
        limits.leave(Address("10.0.0.1", port: 9)!)
        #expect(limits.count(of: Address("::ffff:10.0.0.1", port: 0)!) == 1)
        #expect(enters("10.0.0.1"))
    }

    @Test("the defaults of older servers are accepted")
    func olderDefaults() throws {
        for (workers, reads, size, sends, free) in [
            (1, 4, 8_192, 20, 0), (2, 4, 4_096, 20, 200), (4, 1, 8_192, 20, .max),
        ] {
            var options = ServerOptions()
            options.endpoint.ioWorkers = workers
            (options.endpoint.pendingReads, options.endpoint.bufferSize) = (reads, size)
            options.endpoint.maximumPendingSends = sends
            (options.endpoint.maximumFreeBuffers, options.endpoint.maximumFreeContexts) = (free, free)
            options.endpoint.maximumConnections = 1_201
            options.endpoint.limits.idle = .seconds(120)
            let server = Server(options, handler: Nobody())
            try server.start()
            #expect(try server.stop().isQuiet)
        }
    }

    @Test("impossible options are refused, and nothing is started")
    func impossible() {
        let faults: [(inout EndpointOptions) -> Void] = [
            { $0.maximumConnections = 0 }, { $0.pendingReads = 65 }, { $0.bufferSize = 0 },
            { $0.maximumPendingSends = 0 },
            { $0.ioWorkers = 0 }, { $0.logicalWorkers = -1 }, { $0.budgetPages = 0 },
        ]
        for fault in faults {
            var options = ServerOptions()
            fault(&options.endpoint)
            let server = Server(options, handler: Nobody())
            #expect(throws: EndpointError.self) { try server.start() }
            #expect(!server.isStarted)
        }
    }
}

private final class Nobody: EndpointHandler {}
