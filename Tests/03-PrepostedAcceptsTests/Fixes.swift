import Kernel
import PrepostedAcceptsPitfalls
import Stage
import Testing

@Suite(.serialized) struct Chapter03PrepostedAcceptsFixes {
    @Test(
        "accept-one-at-a-time: I3.2: a burst is served without a call to accept in between",
        arguments: DriverKind.permitted)
    func acceptOneAtATime(driver: DriverKind) throws { try holds(AcceptOneAtATime.pitfall, driver) }

    @Test(
        "accepts-not-replenished: I3.2: each accept that completes is posted again",
        arguments: DriverKind.permitted)
    func acceptsNotReplenished(driver: DriverKind) throws { try holds(AcceptsNotReplenished.pitfall, driver) }

    @Test(
        "accept-burst-exhausts-pool: I3.3: the pool grows at once, and shrinks back",
        arguments: DriverKind.permitted)
    func acceptBurstExhaustsPool(driver: DriverKind) throws {
        try holds(AcceptBurstExhaustsPool.pitfall, driver)
    }

    @Test(
        "silent-client-holds-accept: I3.4: silent clients are ended, and the honest one gets in",
        arguments: DriverKind.permitted)
    func silentClientHoldsAccept(driver: DriverKind) throws {
        try holds(SilentClientHoldsAccept.pitfall, driver)
    }

    @Test(
        "accept-completes-empty: I3.2: the accept of a client that left is posted again, and nobody is announced",
        arguments: DriverKind.permitted)
    func acceptCompletesEmpty(driver: DriverKind) throws { try holds(AcceptCompletesEmpty.pitfall, driver) }

    @Test("accept-error-kills-listener: I3.9: resets are survived", arguments: DriverKind.permitted)
    func acceptErrorKillsListener(driver: DriverKind) throws {
        try holds(AcceptErrorKillsListener.pitfall, driver)
    }

    @Test(
        "first-data-dropped: I3.5: what came with the accept is handed over first",
        arguments: DriverKind.permitted)
    func firstDataDropped(driver: DriverKind) throws { try holds(FirstDataDropped.pitfall, driver) }

    @Test(
        "accept-address-block: I3.6: one number for both, and a block that is too small is refused",
        arguments: DriverKind.permitted)
    func acceptAddressBlock(driver: DriverKind) throws { try holds(AcceptAddressBlock.pitfall, driver) }

    @Test("accept-context-not-updated: I3.7: after the update both work", arguments: DriverKind.permitted)
    func acceptContextNotUpdated(driver: DriverKind) throws {
        try holds(AcceptContextNotUpdated.pitfall, driver)
    }

    @Test(
        "accepted-socket-leak: I3.8: whoever gets in during shutdown is closed",
        arguments: DriverKind.permitted)
    func acceptedSocketLeak(driver: DriverKind) throws { try holds(AcceptedSocketLeak.pitfall, driver) }

    @Test("phantom-pending-accept: I3.1: what is counted is what is pending", arguments: DriverKind.permitted)
    func phantomPendingAccept(driver: DriverKind) throws { try holds(PhantomPendingAccept.pitfall, driver) }

    @Test(
        "sweep-walks-unlocked-list: I3.4: nobody changes the list between the look and the closing",
        arguments: DriverKind.permitted)
    func sweepWalksUnlockedList(driver: DriverKind) throws {
        try holds(SweepWalksUnlockedList.pitfall, driver)
    }

    @Test("inherited-descriptor: every descriptor is close-on-exec", arguments: DriverKind.permitted)
    func inheritedDescriptor(driver: DriverKind) throws { try holds(InheritedDescriptor.pitfall, driver) }

    @Test(
        "drain-without-a-bound: so many bytes at a time, and then it is the others' turn",
        arguments: DriverKind.permitted)
    func drainWithoutABound(driver: DriverKind) throws { try holds(DrainWithoutABound.pitfall, driver) }

    @Test(
        "accept-error-kills-listener: I3.9: without descriptors accepting pauses, and resumes",
        arguments: words)
    func outOfDescriptors(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                try OutOfDescriptors.run(DriverKind(rawValue: driver)!)
            }
        }
    }

    private func holds(_ pitfall: Pitfall, _ driver: DriverKind) throws {
        let observation = try inTime { try pitfall.fixed(driver) }
        #expect(!observation.happened, "\(observation.lines)")
    }
}

/// The drivers by name: what goes into a process of its own has to be written down.
let words = DriverKind.permitted.map(\.rawValue)
