import CompletionPorts
import CompletionPortsPitfalls
import Kernel
import Stage
import Testing

@Suite(.serialized) struct Chapter02CompletionPortsPitfallsIO {
    @Test(
        "null-overlapped-failure: a timeout and a closed port are handled as failures, with a null context",
        arguments: DriverKind.permitted)
    func nullOverlappedFailure(driver: DriverKind) throws {
        try reproduces(NullOverlappedFailure.pitfall, driver)
    }

    @Test("null-overlapped-failure: writing into that context is the end of the program")
    func nullOverlappedCrash() async {
        await #expect(processExitsWith: .failure) {
            try BrokenFailureCheck.crash(.epoll)
        }
    }

    @Test(
        "failed-io-ignored: the contexts and descriptors of reset connections stay for ever",
        arguments: DriverKind.permitted)
    func failedIOIgnored(driver: DriverKind) throws {
        try reproduces(
            FailedIOIgnored.pitfall, driver, "dead connections whose descriptor is still open: 2")
    }

    @Test(
        "inline-io-is-unfair: a quiet client waits for everything that a busy one has sent",
        arguments: DriverKind.permitted)
    func inlineIOIsUnfair(driver: DriverKind) throws {
        try reproduces(InlineIOIsUnfair.pitfall, driver)
    }

    @Test(
        "key-truncated: cut to 32 bits, one key finds nobody, and another a stranger",
        arguments: DriverKind.permitted)
    func keyTruncated(driver: DriverKind) throws {
        try reproduces(KeyTruncated.pitfall, driver, "ann speaks: taken for nobody")
        try reproduces(KeyTruncated.pitfall, driver, "cleo speaks: taken for bob")
    }

    @Test(
        "urgent-byte-ends-a-read: what lies behind an urgent byte is never read",
        arguments: DriverKind.permitted)
    func urgentByteEndsARead(driver: DriverKind) throws {
        try reproduces(UrgentByteEndsARead.pitfall, driver, "read of it: \"before\"")
    }

    @Test(
        "associate-twice: what was received on one connection is handed to another",
        arguments: DriverKind.permitted)
    func associateTwice(driver: DriverKind) throws {
        try reproduces(AssociateTwice.pitfall, driver)
    }

    @Test(
        "closed-port-loses-packets: the contexts of queued packets never come back",
        arguments: DriverKind.permitted)
    func closedPortLosesPackets(driver: DriverKind) throws {
        try reproduces(ClosedPortLosesPackets.pitfall, driver)
    }

    @Test(
        "immediate-success-handled-twice: ten bytes are booked as twenty", arguments: DriverKind.permitted)
    func immediateSuccessHandledTwice(driver: DriverKind) throws {
        try reproduces(
            ImmediateSuccessHandledTwice.pitfall, driver, "bytes booked: 20")
    }

    @Test(
        "issuer-exits: a bare ring cancels the receive of a thread that has ended",
        .enabled(if: DriverKind.permitted.contains(.ioUring), "this machine does not permit io_uring"))
    func issuerExits() throws {
        try reproduces(IssuerExits.pitfall, .ioUring)
    }

    @Test(
        "sentinel-is-a-real-key: connection 0 says hello, and the worker takes it for its end",
        arguments: DriverKind.permitted)
    func sentinelIsARealKey(driver: DriverKind) throws {
        try reproduces(
            SentinelIsARealKey.pitfall, driver, "the worker ended before anybody told it to")
    }

    @Test(
        "posted-but-not-submitted: the answer leaves when the handler has finished computing",
        arguments: DriverKind.permitted)
    func postedButNotSubmitted(driver: DriverKind) throws {
        try reproduces(PostedButNotSubmitted.pitfall, driver)
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
