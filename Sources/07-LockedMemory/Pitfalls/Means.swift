import CompletionPorts
import Glibc
import Kernel
import LockedMemory
import Reordering
import Stage

/// A receive that is charged.
final class Reading: Overlapped, PageClaimant, @unchecked Sendable {
    var claim = PageClaim()
    let memory: UnsafeMutableRawBufferPointer
    private let came = Counter()

    /// A receive into memory that is not its own, and stays as long as this is pending.
    init(into memory: UnsafeMutableRawBufferPointer) {
        self.memory = memory
        super.init()
    }

    func budgetCame() { came.add() }

    /// Whether the budget has come since this was last asked.
    var hasCome: Bool {
        defer { came.add(-came.value) }
        return came.value > 0
    }
}

extension CompletionPort {
    /// A port on one driver.
    static func on(_ driver: DriverKind, concurrency: Int = 2) throws(SystemError) -> CompletionPort {
        var options = Options()
        options.driver = driver
        return try CompletionPort(concurrency: concurrency, options: options)
    }

    /// The next packet, whether it tells of a success or a failure; an error if there is none in bounded time.
    func next(within patience: Duration = Gate.patience) throws(SystemError) -> Packet {
        switch dequeue(timeout: patience) {
        case .completed(let packet), .failed(let packet, _): return packet
        case .timedOut: throw SystemError(ETIMEDOUT, attempted: "wait for a packet")
        case .closed: throw SystemError.closed("wait for a packet")
        }
    }
}

extension BudgetedServer {
    /// The chapter's server on one driver.
    static func on(
        _ driver: DriverKind, _ choice: BudgetedReceives.Choice?, budget: Int,
        beforeReading: (@Sendable () -> Void)? = nil
    ) throws(SystemError) -> BudgetedServer {
        var options = Options()
        options.hub.port.driver = driver
        options.choice = choice
        options.budgetPages = budget
        // What is shown is one way alone: no client is a stream.
        options.hub.maximumReadSize = 0
        if let beforeReading {
            var probe = StreamProbe()
            probe.readable = { _ in beforeReading() }
            options.hub.probe = probe
        }
        return try BudgetedServer(options: options)
    }

    /// The pages of its budget, as they are now.
    var pages: PageBudget.Counters { receives.budget.counters }

    /// Clients that have been taken in, one after the other: the first is the one that came first.
    func clients(_ count: Int) throws(SystemError) -> [Socket] {
        let before = hub.counters.opened
        var clients: [Socket] = []
        for number in 1...count {
            let client = try Socket.connected(to: address)
            try client.setNoDelay()
            clients.append(client)
            guard eventually({ hub.counters.opened == before + number }) else {
                throw SystemError(ETIMEDOUT, attempted: "be taken in")
            }
        }
        return clients
    }
}

/// Takes what has arrived on the server's end of a client's connection, past the server: another reader.
///
/// It looks for the process's descriptor with the same two addresses the other way round, which is for scenarios only.
func stealBytes(sentBy client: Socket) throws(SystemError) -> Int {
    let (ours, theirs) = (try client.localAddress.port, try client.remoteAddress.port)
    for descriptor in Int32(3)..<65_536 where port(descriptor, getpeername) == ours {
        guard port(descriptor, getsockname) == theirs else { continue }
        var bytes = [UInt8](repeating: 0, count: 256)
        return recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
    }
    throw SystemError(ENOENT, attempted: "find the server's end")
}

private func port(
    _ descriptor: Int32,
    _ ask: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
) -> UInt16? {
    var address = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let answer = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { ask(descriptor, $0, &length) }
    }
    guard answer == 0, address.sin_family == sa_family_t(AF_INET) else { return nil }
    return UInt16(bigEndian: address.sin_port)
}
