import CompletionPorts
import CompletionPortsPitfalls
import Kernel
import Stage
import Testing

@Suite(.serialized) struct Chapter02CompletionPortsFixesIO {
    @Test(
        "null-overlapped-failure: four outcomes are four cases, and only two of them have a packet",
        arguments: DriverKind.permitted)
    func nullOverlappedFailure(driver: DriverKind) throws {
        let seen = try holds(NullOverlappedFailure.pitfall.fixed, driver)
        #expect(
            seen.lines == [
                "an operation fails: failed: context", "nothing comes: timed out: there is no context",
                "the port is closed: closed: there is no context",
            ])
    }

    @Test(
        "failed-io-ignored: a failure comes with key, context and error, and the connection is closed",
        arguments: DriverKind.permitted)
    func failedIOIgnored(driver: DriverKind) throws {
        try holds(FailedIOIgnored.pitfall.fixed, driver)
    }

    @Test(
        "inline-io-is-unfair: at most 64 packets come before the quiet client's, however busy the other is",
        arguments: DriverKind.permitted)
    func inlineIOIsUnfair(driver: DriverKind) throws {
        try holds(InlineIOIsUnfair.pitfall.fixed, driver)
    }

    @Test(
        "urgent-byte-ends-a-read: all ordinary bytes come, without more being sent",
        arguments: DriverKind.permitted)
    func urgentByteEndsARead(driver: DriverKind) throws {
        let seen = try holds(UrgentByteEndsARead.pitfall.fixed, driver)
        #expect(seen.lines.last == "read of it: \"beforebehind\"")
    }

    @Test(
        "associate-twice: the second association is refused, and the first key holds",
        arguments: DriverKind.permitted)
    func associateTwice(driver: DriverKind) throws {
        try holds(AssociateTwice.pitfall.fixed, driver)
    }

    @Test(
        "closed-port-loses-packets: every queued packet is delivered or reported",
        arguments: DriverKind.permitted)
    func closedPortLosesPackets(driver: DriverKind) throws {
        try holds(ClosedPortLosesPackets.pitfall.fixed, driver)
    }

    @Test(
        "immediate-success-handled-twice: the post returns nothing to handle, the packet tells once",
        arguments: DriverKind.permitted)
    func immediateSuccessHandledTwice(driver: DriverKind) throws {
        try holds(ImmediateSuccessHandledTwice.pitfall.fixed, driver)
    }

    @Test(
        "issuer-exits: a receive outlives the thread that posted it", arguments: DriverKind.permitted)
    func issuerExits(driver: DriverKind) throws {
        try holds(IssuerExits.pitfall.fixed, driver)
    }

    @Test(
        "key-truncated: the key is as wide as a pointer and arrives whole, with its high bits set",
        arguments: DriverKind.permitted)
    func keyTruncated(driver: DriverKind) throws {
        let seen = try holds(KeyTruncated.pitfall.fixed, driver)
        #expect(
            seen.lines == [
                "ann speaks: taken for ann", "bob speaks: taken for bob", "cleo speaks: taken for cleo",
            ])
    }

    @Test(
        "sentinel-is-a-real-key: stopping is a kind of packet, and every key is a connection's",
        arguments: DriverKind.permitted)
    func sentinelIsARealKey(driver: DriverKind) throws {
        try holds(SentinelIsARealKey.pitfall.fixed, driver)
    }

    @Test(
        "posted-but-not-submitted: the answer leaves while the handler computes",
        arguments: DriverKind.permitted)
    func postedButNotSubmitted(driver: DriverKind) throws {
        try holds(PostedButNotSubmitted.pitfall.fixed, driver)
    }

    @Test(
        "sentinel-is-a-real-key: a group of workers takes no packet for its end, whatever is in it",
        arguments: DriverKind.permitted)
    func nothingEndsAWorker(driver: DriverKind) throws {
        let port = try CompletionPort.on(driver)
        let handled = Counter()
        let group = try WorkerGroup(2, on: port) { _, _ in handled.add() }
        // As empty as a packet can be, and as full; more of them than workers.
        let keys: [UInt] = [0, 0, 0, .max, .max, .max, 1, 1, 1]
        for key in keys { try port.post(bytes: key == .max ? -1 : 0, key: key) }
        #expect(eventually { handled.value == keys.count })
        #expect(eventually { port.workers.waiting == 2 })
        group.stop()
    }

    // What chapter 01 breaks and this chapter mends.

    @Test(
        "event-per-request-limit: 10,000 requests are pending on one port, for one thread",
        arguments: DriverKind.permitted)
    func eventPerRequestLimit(driver: DriverKind) throws {
        try holds(EventPerRequestLimit.fixed, driver)
    }

    @Test(
        "event-one-waiter: each completion comes to exactly one of the threads that wait",
        arguments: DriverKind.permitted)
    func eventOneWaiter(driver: DriverKind) throws {
        try holds(EventOneWaiter.fixed, driver)
    }

    @Test(
        "apc-starved-by-computation: completions are handled while their poster computes, some within 2 ms",
        arguments: DriverKind.permitted, APCStarvedByComputation.Poster.allCases)
    func apcStarvedByComputation(driver: DriverKind, poster: APCStarvedByComputation.Poster) throws {
        try holds({ try APCStarvedByComputation.fixed($0, poster: poster) }, driver)
    }

    @discardableResult
    private func holds(
        _ scenario: @escaping @Sendable (DriverKind) throws -> Observation, _ driver: DriverKind
    ) throws -> Observation {
        let observation = try inTime { try scenario(driver) }
        #expect(!observation.happened, "\(observation.lines)")
        return observation
    }
}
