import CompletionPortsPitfalls
import Kernel
import Stage
import Testing

@Suite(.serialized) struct Chapter02CompletionPortsPitfallsWorkers {
    @Test("too-many-runnable-threads: eight packets, and eight handlers run at once")
    func tooManyRunnableThreads() throws { try goesWrong("too-many-runnable-threads") }

    @Test("blocked-worker-stalls-port: a packet waits although the only running worker sleeps")
    func blockedWorkerStallsPort() throws { try goesWrong("blocked-worker-stalls-port") }

    @Test("fifo-wake-goes-cold: the three packets of the nine steps go to A, B and A")
    func fifoWakeGoesCold() throws {
        let seen = try goesWrong("fifo-wake-goes-cold")
        #expect(seen.lines[2].hasSuffix("goes to A"))
        #expect(seen.lines[6].hasSuffix("goes to B"))
        #expect(seen.lines[8].hasSuffix("goes to A"))
    }

    @Test(
        "exit-flag-never-seen: the flag is set, and the worker sleeps in the dequeue call",
        arguments: DriverKind.permitted)
    func exitFlagNeverSeen(_ driver: DriverKind) throws { try goesWrong("exit-flag-never-seen", driver) }

    @Test("one-exit-packet: one of three workers ends, two still wait", arguments: DriverKind.permitted)
    func oneExitPacket(_ driver: DriverKind) throws {
        let seen = try goesWrong("one-exit-packet", driver)
        #expect(seen.lines[0].hasSuffix("ended: 1, that still wait: 2"))
    }

    @Test(
        "shutdown-trusts-last-thread: shutdown returns while two workers handle packets",
        arguments: DriverKind.permitted)
    func shutdownTrustsLastThread(_ driver: DriverKind) throws {
        let seen = try goesWrong("shutdown-trusts-last-thread", driver)
        #expect(seen.lines[2].hasSuffix("at that moment: 2"))
    }

    @Test("shutdown-spins-without-workers: exit packets are posted until somebody stops it")
    func shutdownSpinsWithoutWorkers() throws { try goesWrong("shutdown-spins-without-workers") }

    @Test(
        "broadcast-by-n-packets: one worker takes both packets, the other none",
        arguments: DriverKind.permitted)
    func broadcastByNPackets(_ driver: DriverKind) throws { try goesWrong("broadcast-by-n-packets", driver) }

    @Test("batch-dequeue-starves: one worker takes all eight packets, the other waits")
    func batchDequeueStarves() throws {
        let seen = try goesWrong("batch-dequeue-starves")
        #expect(seen.lines[1] == "first batches: A 8, B 0")
    }

    @Test(
        "leader-leaves-nobody: a request completes, and nobody is in the driver",
        arguments: DriverKind.permitted)
    func leaderLeavesNobody(_ driver: DriverKind) throws { try goesWrong("leader-leaves-nobody", driver) }

    @Test(
        "posts-starve-io: fifty thousand posted packets, and the answered request has not come",
        arguments: DriverKind.permitted)
    func postsStarveIO(_ driver: DriverKind) throws { try goesWrong("posts-starve-io", driver) }

    @Test(
        "poll-eats-the-wakeup: a packet is posted, the port is closed, and the one who waits sleeps on",
        arguments: DriverKind.permitted)
    func pollEatsTheWakeup(_ driver: DriverKind) throws {
        let seen = try goesWrong("poll-eats-the-wakeup", driver)
        #expect(seen.lines[1].hasSuffix("A sleeps on") && seen.lines[2].hasSuffix("A sleeps on"))
    }

    @Test(
        "worker-dies-silently: two bad packets end both workers, and a good one is not served",
        arguments: DriverKind.permitted)
    func workerDiesSilently(_ driver: DriverKind) throws { try goesWrong("worker-dies-silently", driver) }

    @discardableResult
    private func goesWrong(_ slug: String, _ driver: DriverKind = .epoll) throws -> Observation {
        let pitfall = try #require(Chapter02.pitfalls.first { $0.slug == slug })
        let seen = try inTime { try pitfall.broken(driver) }
        #expect(seen.happened, "\(seen.lines)")
        return seen
    }
}
