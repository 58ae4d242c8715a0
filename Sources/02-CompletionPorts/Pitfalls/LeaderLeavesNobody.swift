import CompletionPorts
import Kernel
import Stage

/// Two workers wait, one of them in the driver. One of them leaves and stays away; then a request completes, and the
/// other should have it.
enum LeaderLeavesNobody {
    static let pitfall = Pitfall(
        slug: "leader-leaves-nobody",
        title: "the worker that waits in the driver leaves with a packet, and nobody takes its place",
        broken: { driver in
            let port = try BrokenLeaderPort(driver)
            let pairs = try Pair.several(2)
            for pair in pairs { try pair.server.associate(with: port, key: 1, driver: port.driver) }
            let isLeft = try run(.completion, pairs, patience: .milliseconds(300)) {
                port.waiting
            } take: { _ in
                _ = port.dequeue()
            } stayAway: {
                $0.pass()
            } post: {
                port.post(key: 2)
            } close: {
                port.close()
            }
            return Observation(happened: isLeft, lines: [line(.completion, isLeft)])
        },
        fixed: { driver in
            var lines: [String] = []
            var happened = false
            for way in Way.allCases {
                let isLeft = try fixed(way, driver)
                happened = happened || isLeft
                lines.append(line(way, isLeft))
            }
            return Observation(happened: happened, lines: lines)
        })

    private static func line(_ way: Way, _ isLeft: Bool) -> String {
        "one leaves \(way.rawValue); then a request completes: "
            + (isLeft ? "its packet waits, and so does the other" : "the other handles it")
    }

    /// The ways of leaving.
    private enum Way: String, CaseIterable {
        case completion = "with the packet of a request"
        case posted = "with a posted packet"
        case timedOut = "since its time is over"
        case blocking = "with a packet, and says that it may block"
        case otherPort = "to ask another port"
    }

    private static func fixed(_ way: Way, _ driver: DriverKind) throws -> Bool {
        // One may run: so one waits in the driver, and the other in the port's own stack.
        let port = try CompletionPort.on(driver)
        let other = try CompletionPort.on(driver)
        let pairs = try Pair.several(2)
        for pair in pairs { try port.associate(pair.server, key: 1) }
        return try run(way, pairs, patience: Gate.patience) {
            port.workers.waiting
        } take: {
            _ = port.dequeue(timeout: $0)
        } stayAway: { gate in
            switch way {
            case .otherPort: _ = other.dequeue()
            case .blocking: port.blocking { _ = gate.pass() }
            default: gate.pass()
            }
        } post: {
            try? port.post()
        } close: {
            port.close()
            other.close()
        }
    }

    /// Returns whether the one that did not leave was left alone.
    private static func run(
        _ way: Way, _ pairs: [Pair], patience: Duration, waiting: () -> Int,
        take: @escaping @Sendable (Duration?) -> Void, stayAway: @escaping @Sendable (Gate) -> Void,
        post: () -> Void, close: () -> Void
    ) throws -> Bool {
        let team = [SteppedWorker("A"), SteppedWorker("B")]
        let (left, gate) = (Counter(), Gate())
        let requests = pairs.map { _ in Request() }
        for (pair, request) in zip(pairs, requests) {
            try pair.server.receive(request, into: request.memory)
        }
        for (index, worker) in team.enumerated() {
            worker.begin {
                take(way == .timedOut && index == 0 ? .milliseconds(200) : nil)
                if left.add() == 1 { stayAway(gate) }
            }
            _ = eventually { waiting() == index + 1 && worker.isFastAsleep }
        }
        switch way {
        case .timedOut: break
        case .posted: post()
        default: try pairs[0].client.say("x")
        }
        _ = eventually { left.value == 1 && team.allSatisfy { $0.isAsleep } }
        try pairs[1].client.say("y")
        let isLeft = !eventually(within: patience) { left.value == 2 }
        gate.open()
        close()
        for worker in team { worker.end() }
        for pair in pairs { pair.server.close() }
        return isLeft
    }
}
