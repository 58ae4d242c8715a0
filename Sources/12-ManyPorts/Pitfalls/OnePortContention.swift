import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: all workers go through one door.
struct BrokenSharing {
    let workers: Int

    /// Which port a worker serves.
    func ports(_ driver: DriverKind) throws(SystemError) -> [CompletionPort] {
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: workers, options: options)
        return Array(repeating: port, count: workers)
    }
}

/// A door for each worker.
struct Sharing {
    let workers: Int

    func ports(_ driver: DriverKind) throws(SystemError) -> [CompletionPort] {
        var options = CompletionPort.Options()
        options.driver = driver
        var ports: [CompletionPort] = []
        for _ in 0..<workers { ports.append(try CompletionPort(concurrency: 1, options: options)) }
        return ports
    }
}

/// One worker is inside its port, and the others want packets.
public enum OnePortContention {
    private static let workers = 4

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "one-port-contention",
        title: "who is inside the port keeps everybody else from their packets",
        broken: { driver in try observe(try BrokenSharing(workers: workers).ports(driver)) },
        fixed: { driver in try observe(try Sharing(workers: workers).ports(driver)) })

    /// Each worker has a packet in its hand and another one in its port. The first goes into the port, and there the system
    /// takes its processor away: a gate stands for that. Then the others are done with what they have.
    private static func observe(_ ports: [CompletionPort]) throws -> Observation {
        let (ready, inside, resume, others) = (Gate(count: workers), Gate(), Gate(), Gate())
        let threads = Guarded<[Int32]>([])
        let handled = Counter()
        defer {
            others.open()
            resume.open()
        }
        let handler: WorkerGroup.Handler = { packet, _ in
            guard packet.bytes == 0 else {
                handled.add()
                return
            }
            ready.open()
            if packet.key == 0 {
                others.pass()
                // As in the middle of taking a packet: with the port's lock.
                ports[0].lock.locked {
                    inside.open()
                    resume.pass()
                }
            } else {
                threads.locked { $0.append(Kernel.Thread.currentID) }
                inside.pass()
            }
        }
        let isShared = ports[0] === ports[1]
        let groups = try (0..<(isShared ? 1 : workers)).map {
            try WorkerGroup(isShared ? workers : 1, on: ports[$0], handler: handler)
        }
        for key in 0..<workers { try ports[key].post(key: UInt(key)) }
        let isReady = ready.pass()
        // One for each of the others.
        for key in 1..<workers { try ports[key].post(bytes: 1, key: UInt(key)) }
        others.open()
        let isHeld = inside.pass()
        // Either they get their packets, or each stands before the lock.
        let isSettled = eventually {
            if handled.value == workers - 1 { return true }
            return handled.value == 0
                && threads.locked { $0 }.allSatisfy { Kernel.Thread.state(of: $0) == .blocked }
        }
        let meanwhile = handled.value
        resume.open()
        let isDone = eventually { handled.value == workers - 1 }
        for group in groups { group.stop() }
        return Observation(
            happened: isReady && isHeld && isSettled && meanwhile == 0 && isDone,
            lines: [
                "\(workers) workers, \(counted(isShared ? 1 : workers, "port")); one worker is held inside its port",
                "\(workers - 1) packets are queued for the \(workers - 1) others: \(meanwhile) of them "
                    + (meanwhile == 1 ? "is handled" : "are handled"),
                "when it goes on: \(handled.value)",
            ])
    }
}
