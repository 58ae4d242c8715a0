import CompletionPorts
import CompletionPortsPitfalls
import Kernel
import Stage
import Testing

@Suite(.serialized) struct Chapter02CompletionPortsFixesWorkers {
    @Test(
        "too-many-runnable-threads: never more handlers than the limit, with four times as many workers",
        arguments: DriverKind.permitted)
    func tooManyRunnableThreads(_ driver: DriverKind) throws {
        try holds("too-many-runnable-threads", driver)
    }

    @Test(
        "blocked-worker-stalls-port: another worker is released, and the limit holds again afterwards",
        arguments: DriverKind.permitted)
    func blockedWorkerStallsPort(_ driver: DriverKind) throws {
        try holds("blocked-worker-stalls-port", driver)
    }

    @Test(
        "fifo-wake-goes-cold: the nine steps; the packets go to B, B and A", arguments: DriverKind.permitted)
    func fifoWakeGoesCold(_ driver: DriverKind) throws {
        let seen = try holds("fifo-wake-goes-cold", driver)
        #expect(
            seen.lines == [
                "1. A asks for a packet, then B does",
                "2. waiting: A and B",
                "3. a request completes, and goes to B",
                "4. waiting: A",
                "5. B has handled it, and asks again",
                "6. waiting: A and B",
                "7. the second request completes, and goes to B",
                "8. waiting: A",
                "9. the third completes while B is busy, and goes to A",
            ])
    }

    @Test(
        "fifo-wake-goes-cold: in the port's own stack, too, the newest goes first; the others sleep until it is busy",
        arguments: DriverKind.permitted)
    func fifoWakeAmongTheParked(_ driver: DriverKind) throws {
        // The oldest waits in the driver, since one may run; the others are parked.
        let port = try makePort(1, driver)
        let workers = ["A", "B", "C"].map { PortWorker($0) }
        defer {
            port.close()
            for worker in workers { worker.worker.end() }
        }
        for (index, worker) in workers.enumerated() { try #require(worker.waits(at: port, as: index + 1)) }
        for number in UInt(1)...2 {
            try port.post(key: number)
            try #require(workers[2].key() == number)
            try #require(workers[2].waits(at: port, as: 3))
        }
        // C has a packet and sleeps with it: the next is B's.
        try port.post(key: 3)
        try #require(workers[2].key() == 3)
        try port.post(key: 4)
        try #require(workers[1].key() == 4)
    }

    @Test("exit-flag-never-seen: a posted packet wakes the worker", arguments: DriverKind.permitted)
    func exitFlagNeverSeen(_ driver: DriverKind) throws { try holds("exit-flag-never-seen", driver) }

    @Test(
        "one-exit-packet: a packet for each worker, or closing the port, ends all of them",
        arguments: DriverKind.permitted)
    func oneExitPacket(_ driver: DriverKind) throws { try holds("one-exit-packet", driver) }

    @Test(
        "shutdown-trusts-last-thread: shutdown returns when every worker has ended",
        arguments: DriverKind.permitted)
    func shutdownTrustsLastThread(_ driver: DriverKind) throws {
        try holds("shutdown-trusts-last-thread", driver)
    }

    @Test(
        "shutdown-spins-without-workers: no workers are refused; closing a port without any returns",
        arguments: DriverKind.permitted)
    func shutdownSpinsWithoutWorkers(_ driver: DriverKind) throws {
        try holds("shutdown-spins-without-workers", driver)
    }

    @Test(
        "broadcast-by-n-packets: who leaves on its packet takes no second one",
        arguments: DriverKind.permitted)
    func broadcastByNPackets(_ driver: DriverKind) throws { try holds("broadcast-by-n-packets", driver) }

    @Test("batch-dequeue-starves: a batch is a share of the queue", arguments: DriverKind.permitted)
    func batchDequeueStarves(_ driver: DriverKind) throws {
        let seen = try holds("batch-dequeue-starves", driver)
        #expect(seen.lines[1] == "first batches: A 4, B 2")
    }

    // I2.7
    @Test(
        "leader-leaves-nobody: whichever way one leaves, the other is there for the next completion",
        arguments: DriverKind.permitted)
    func leaderLeavesNobody(_ driver: DriverKind) throws { try holds("leader-leaves-nobody", driver) }

    @Test(
        "posts-starve-io: the request's packet comes within a bound, however full the queue",
        arguments: DriverKind.permitted)
    func postsStarveIO(_ driver: DriverKind) throws { try holds("posts-starve-io", driver) }

    @Test(
        "poll-eats-the-wakeup: who polls and is being woken does not go to sleep; a post and a close reach it",
        arguments: DriverKind.permitted)
    func pollEatsTheWakeup(_ driver: DriverKind) throws { try holds("poll-eats-the-wakeup", driver) }

    @Test(
        "worker-dies-silently: bad packets are counted and reported, and the workers go on",
        arguments: DriverKind.permitted)
    func workerDiesSilently(_ driver: DriverKind) throws { try holds("worker-dies-silently", driver) }

    @discardableResult
    private func holds(_ slug: String, _ driver: DriverKind) throws -> Observation {
        let pitfall = try #require(Chapter02.pitfalls.first { $0.slug == slug })
        let seen = try inTime { try pitfall.fixed(driver) }
        #expect(!seen.happened, "\(seen.lines)")
        return seen
    }
}
