import Glibc
import Kernel
import Stage
import Testing

@Suite(.serialized) struct StageClientLoad {
    @Test("every client makes its round trips, and each is measured", arguments: [1, 50])
    func roundTrips(connections: Int) throws {
        let server = try EchoServer()
        defer { server.end() }
        let load = ClientLoad(
            to: server.address, connections: connections, duration: .seconds(20), roundTripsEach: 40)
        let report = try load.run()
        #expect(report.roundTrips == connections * 40)
        #expect(report.latency.count == report.roundTrips)
        #expect(report.silent == 0)
        #expect(report.perSecond > 0)
        #expect(report.latency.percentile(50) > .zero)
        #expect(report.latency.percentile(50) <= report.latency.percentile(99))
    }

    @Test("messages larger than any buffer come back whole")
    func large() throws {
        let server = try EchoServer()
        defer { server.end() }
        let load = ClientLoad(
            to: server.address, connections: 2, messageSize: 8 << 20, duration: .seconds(30),
            roundTripsEach: 2)
        #expect(try load.run().roundTrips == 4)
    }

    @Test("it ends with its time")
    func timed() throws { try timed(.loopback()) }

    @Test(
        "the same over IPv6",
        .enabled(if: Address.loopbacks.contains(.loopback6()), "this machine has no ::1"))
    func timedOverIPv6() throws { try timed(.loopback6()) }

    private func timed(_ address: Address) throws {
        let server = try EchoServer(on: address)
        defer { server.end() }
        let report = try ClientLoad(to: server.address, connections: 3, duration: .milliseconds(200)).run()
        #expect(report.roundTrips > 0)
        #expect(report.elapsed >= .milliseconds(200) && report.elapsed < .seconds(5))
    }

    @Test("a wrong byte and a doubled answer are noticed, and told apart from a closed connection")
    func faults() throws {
        func failure(_ fault: EchoServer.Fault) throws -> ClientLoad.Failure? {
            let server = try EchoServer(fault: fault)
            defer { server.end() }
            let load = ClientLoad(to: server.address, duration: .seconds(10), roundTripsEach: 100)
            do {
                _ = try load.run()
                return nil
            } catch {
                return error
            }
        }
        #expect(try failure(.wrongByte(after: 64 * 5)) == .wrongBytes(client: 0, roundTrip: 6))
        guard case .wrongBytes(client: 0, _) = try failure(.doubled) else {
            Issue.record("a doubled answer was not noticed")
            return
        }
        #expect(try failure(.closing(after: 64 * 3)) == .closedByServer(client: 0, afterRoundTrips: 3))
    }

    @Test("a silent server is reported, and does not hold the load beyond its time")
    func silent() throws {
        let server = try EchoServer(fault: .silent)
        defer { server.end() }
        let report = try ClientLoad(to: server.address, connections: 4, duration: .milliseconds(100)).run()
        #expect(report.silent == 4 && report.roundTrips == 0)
        #expect(throws: ClientLoad.Failure.unfinished(roundTrips: 0, of: 4)) {
            try ClientLoad(to: server.address, connections: 4, duration: .milliseconds(50), roundTripsEach: 1)
                .run()
        }
    }

    @Test("a load that cannot be run is refused in words")
    func refused() throws {
        func words(_ load: ClientLoad) -> String {
            do {
                _ = try load.run()
                return "it ran"
            } catch {
                return "\(error)"
            }
        }
        #expect(
            words(ClientLoad(to: Address("192.0.2.1", port: 9)!))
                == "load: 192.0.2.1:9 is not on the loopback")
        #expect(words(ClientLoad(to: .loopback())) == "load: the server's port is missing")
        #expect(words(ClientLoad(to: .loopback(port: 9), connections: 0)).contains("not 0"))
        #expect(words(ClientLoad(to: .loopback(port: 9), messageSize: 0)).contains("not 0"))

        // Held, or somebody else might listen there by then.
        let deaf = try Socket(boundTo: .loopback())
        defer { deaf.close() }
        let address = try deaf.localAddress
        #expect(words(ClientLoad(to: address)) == "load: connect to \(address): Connection refused")
    }

    @Test("more clients than an address has ports for come from several addresses")
    func addresses() throws {
        let server = try EchoServer()
        defer { server.end() }
        var load = ClientLoad(to: server.address, connections: 30, duration: .seconds(20), roundTripsEach: 1)
        load.connectionsPerAddress = 10
        #expect(try load.run().roundTrips == 30)
        #expect(server.hosts == ["127.0.0.2", "127.0.0.3", "127.0.0.4"])
    }

    @Test("nothing is left behind")
    func nothingLeft() async {
        await #expect(processExitsWith: .success) {
            let server = try EchoServer()
            func load(_ connections: Int) throws -> Int {
                let load = ClientLoad(
                    to: server.address, connections: connections, duration: .seconds(20), roundTripsEach: 2)
                return try load.run().roundTrips
            }
            guard try load(1) == 2, eventually({ server.connections == 0 }) else { exit(1) }
            Resources.settle()
            let before = (Resources.openDescriptors, Resources.threads)
            guard try load(300) == 600, eventually({ server.connections == 0 }) else { exit(2) }
            exit((Resources.openDescriptors, Resources.threads) == before ? 0 : 3)
        }
    }

    @Test("a load runs in a child process, and its failure comes back in words")
    func inChild() throws {
        let program = try #require(Child.product("bench"))
        let server = try EchoServer()
        let load = ClientLoad(
            to: server.address, connections: 20, duration: .seconds(20), roundTripsEach: 10)
        let report = try load.runInChild(of: program)
        #expect(report.roundTrips == 200 && report.latency.count == 200)
        #expect(report.elapsed > .zero && report.processorTime > .zero)
        server.end()
        let deaf = try Socket(boundTo: .loopback())
        defer { deaf.close() }
        let address = try deaf.localAddress
        #expect(throws: ClientLoad.Failure.child("load: connect to \(address): Connection refused")) {
            try ClientLoad(to: address).runInChild(of: program)
        }
    }

    @Test("a child that is none of this package's programs is noticed")
    func wrongChild() throws {
        let load = ClientLoad(to: .loopback(port: 9))
        #expect(throws: ClientLoad.Failure.child("load: the child process ended with 0 and said nothing")) {
            try load.runInChild(of: "/bin/true")
        }
    }
}

@Suite struct StageLatencyHistogram {
    @Test("percentiles are exact for short times and within 3 % for long ones")
    func percentiles() {
        var histogram = LatencyHistogram()
        for time in 1...60 { histogram.add(nanoseconds: time) }
        #expect(histogram.percentile(50) == .nanoseconds(30))
        #expect(histogram.percentile(100) == .nanoseconds(60))

        var long = LatencyHistogram()
        for time in 1...10_000 { long.add(nanoseconds: time * 1_000) }
        for percent in [1.0, 50, 90, 99, 99.9, 100] {
            let exact = percent * 100_000
            let read = long.percentile(percent) / .nanoseconds(1)
            #expect(read >= exact && read <= exact * 1.032, "\(percent)")
        }
        #expect(long.longest == 10_000_000 && long.count == 10_000)
    }

    @Test("every time has a bucket, and an empty histogram has no times")
    func edges() {
        var histogram = LatencyHistogram()
        #expect(histogram.percentile(99) == .zero)
        for time in [0, -5, 31, 32, 63, 64, 127, 128, Int.max] { histogram.add(nanoseconds: time) }
        #expect(histogram.count == 9)
        #expect(histogram.percentile(100) == .nanoseconds(Int.max))
    }

    @Test("two histograms add up")
    func merge() {
        var one = LatencyHistogram()
        var two = LatencyHistogram()
        for time in 1...50 { one.add(nanoseconds: time) }
        for time in 51...60 { two.add(nanoseconds: time) }
        one.merge(two)
        #expect(one.count == 60 && one.longest == 60)
        #expect(one.percentile(50) == .nanoseconds(30))
    }
}
