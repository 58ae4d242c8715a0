import Kernel
import PrepostedAcceptsPitfalls
import Stage
import Testing

@Suite(.serialized) struct Chapter03PrepostedAcceptsPitfalls {
    @Test(
        "accept-one-at-a-time: a silent first client keeps a burst of others waiting",
        arguments: DriverKind.permitted)
    func acceptOneAtATime(driver: DriverKind) throws {
        try reproduces(AcceptOneAtATime.pitfall, driver, "answered while the first is silent: 0 of 7")
    }

    @Test(
        "accepts-not-replenished: ten accepts serve ten clients, and nobody after them",
        arguments: DriverKind.permitted)
    func acceptsNotReplenished(driver: DriverKind) throws {
        try reproduces(AcceptsNotReplenished.pitfall, driver)
    }

    @Test(
        "accept-burst-exhausts-pool: ten slow clients take ten accepts, and twenty quick ones wait",
        arguments: DriverKind.permitted)
    func acceptBurstExhaustsPool(driver: DriverKind) throws {
        try reproduces(AcceptBurstExhaustsPool.pitfall, driver, "answered meanwhile: 0 of 20")
    }

    @Test(
        "silent-client-holds-accept: silent clients hold every accept, and lock an honest one out",
        arguments: DriverKind.permitted)
    func silentClientHoldsAccept(driver: DriverKind) throws {
        try reproduces(SilentClientHoldsAccept.pitfall, driver)
    }

    @Test(
        "accept-completes-empty: clients that leave without a word take accepts with them",
        arguments: DriverKind.permitted)
    func acceptCompletesEmpty(driver: DriverKind) throws {
        try reproduces(AcceptCompletesEmpty.pitfall, driver)
    }

    @Test("accept-error-kills-listener: after ten resets nobody is served", arguments: DriverKind.permitted)
    func acceptErrorKillsListener(driver: DriverKind) throws {
        try reproduces(AcceptErrorKillsListener.pitfall, driver)
    }

    @Test(
        "first-data-dropped: the first words of a client are never answered", arguments: DriverKind.permitted)
    func firstDataDropped(driver: DriverKind) throws {
        try reproduces(FirstDataDropped.pitfall, driver, "it says \"two\" and hears \"two\"")
    }

    @Test("accept-address-block: a client gets the former client's address", arguments: DriverKind.permitted)
    func acceptAddressBlock(driver: DriverKind) throws {
        try reproduces(
            AcceptAddressBlock.pitfall, driver,
            "the second client said \"who am I?\", and its address is the former client's")
    }

    @Test(
        "accept-context-not-updated: the peer is unknown, and shutting down is refused",
        arguments: DriverKind.permitted)
    func acceptContextNotUpdated(driver: DriverKind) throws {
        try reproduces(
            AcceptContextNotUpdated.pitfall, driver, "the client has heard nothing of an end")
    }

    @Test(
        "accepted-socket-leak: a client who got in during shutdown waits for ever",
        arguments: DriverKind.permitted)
    func acceptedSocketLeak(driver: DriverKind) throws { try reproduces(AcceptedSocketLeak.pitfall, driver) }

    @Test("phantom-pending-accept: four refused posts count as four accepts", arguments: DriverKind.permitted)
    func phantomPendingAccept(driver: DriverKind) throws {
        try reproduces(PhantomPendingAccept.pitfall, driver, "counted as pending: 4; really pending: 0")
    }

    @Test(
        "sweep-walks-unlocked-list: the sweep closes a client that has just come",
        arguments: DriverKind.permitted)
    func sweepWalksUnlockedList(driver: DriverKind) throws {
        try reproduces(SweepWalksUnlockedList.pitfall, driver)
    }

    @Test(
        "inherited-descriptor: a child process keeps the port busy and the connection open",
        arguments: DriverKind.permitted)
    func inheritedDescriptor(driver: DriverKind) throws {
        try reproduces(InheritedDescriptor.pitfall, driver)
    }

    @Test(
        "drain-without-a-bound: a client that floods is read empty before another's question is heard",
        arguments: DriverKind.permitted)
    func drainWithoutABound(driver: DriverKind) throws {
        try reproduces(
            DrainWithoutABound.pitfall, driver, "thrown away before the question was heard: everything")
    }

    /// - Parameter line: What the trace has to say besides: the bad outcome itself, where others are bad, too.
    private func reproduces(_ pitfall: Pitfall, _ driver: DriverKind, _ line: String? = nil) throws {
        let observation = try inTime { try pitfall.broken(driver) }
        #expect(observation.happened, "\(observation.lines)")
        if let line { #expect(observation.lines.contains(line), "\(observation.lines)") }
    }
}

/// Runs a scenario on a thread of its own, since it blocks, and for a bounded time.
func inTime<Result: Sendable>(
    _ patience: Duration = .seconds(isSanitized ? 120 : 40), _ body: @escaping @Sendable () throws -> Result
) throws -> Result {
    let outcome = boundedResult(patience) { Swift.Result { try body() } }
    return try #require(outcome, "the scenario did not end within \(patience)").get()
}
