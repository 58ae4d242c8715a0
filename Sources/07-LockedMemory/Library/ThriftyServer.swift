import CompletionPorts
import Contexts
import Glibc
import Kernel
import Timeline

/// The stage's server: gives every client its own bytes back, and locks no more memory than its budget allows.
///
/// In buffered mode every idle client locks a buffer; in zero-byte mode none does; in adaptive mode that depends on how
/// many there are. No client is closed for want of memory: it waits. (I7.3)
public final class ThriftyServer: Sendable {
    /// Where it listens.
    public let address: Address
    /// The pages that its pending operations may lock.
    public let budget: PageBudget
    /// The buffers.
    public let slab: PageSlab
    private let house: ThriftyHouse
    private let workers: WorkerGroup
    private let acceptor: Acceptor

    /// The server's limits and choices.
    public struct Options: Sendable {
        /// Threads that handle packets.
        public var workers = 2
        /// How many of them may run at a time; 0 means as many as there are processors.
        public var concurrency = 0
        /// Connections at a time. One more is closed at once, and counted.
        public var maximumConnections = 12_000
        /// Accepts that wait for clients.
        public var pendingAccepts = 8
        /// Bytes that a connection receives at a time; in whole pages.
        public var bufferSize = Page.size
        /// Buffers that keep their memory while nobody uses them.
        public var maximumFreeBuffers = 1_024
        /// Pages that may be locked: 32 MiB where a page has 4 KiB.
        public var budgetPages = 8_192
        /// What stands behind the budget.
        public var locking = PageBudget.Locking.counted
        /// How connections wait for bytes; nil: adaptive, with thresholds that follow from the budget.
        public var policy: ReceivePolicy?
        /// Whether and how the system asks silent peers.
        public var keepAlive: KeepAlive? = KeepAlive()
        /// Called between a notice and the reading that follows it. For tests.
        public var beforeReading: (@Sendable () -> Void)?
        /// The port's own choices.
        public var port = CompletionPort.Options()

        /// The defaults.
        public init() {}
    }

    /// What a server has done so far.
    public struct Counters: Sendable {
        /// Connections whose memory is not back yet.
        public internal(set) var connections = 0
        /// Connections taken in, since the start.
        public internal(set) var accepted = 0
        /// Connections closed at once, since there were too many.
        public internal(set) var refused = 0
        /// Why connections ended.
        public internal(set) var ends: [CloseReason: Int] = [:]
        /// Packets of receives without a buffer.
        public internal(set) var notices = 0
        /// Notices after which there was nothing to be read.
        public internal(set) var vainNotices = 0
        /// Packets of receives with a buffer.
        public internal(set) var receives = 0
        /// How often the mode has changed.
        public internal(set) var changes = (toZeroByte: 0, toBuffered: 0)
    }

    /// Starts to listen and to serve.
    ///
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible options, EMFILE, ENOMEM.
    public init(on address: Address = .loopback(), options: Options = Options()) throws(SystemError) {
        let pagesEach = Page.count(bytes: options.bufferSize)
        guard options.pendingAccepts > 0, pagesEach > 0, pagesEach <= options.budgetPages else {
            throw SystemError.invalid("start a server without room for a client")
        }
        let standard = ReceiveThresholds(budget: options.budgetPages, pagesEach: pagesEach)
        let policy = options.policy ?? .adaptive(standard)
        if case .adaptive(let thresholds) = policy, thresholds.bufferedUpTo >= thresholds.zeroByteFrom {
            throw SystemError.invalid(
                "change over at \(thresholds.zeroByteFrom) connections, and back at more")
        }
        slab = try PageSlab(
            bufferSize: options.bufferSize, capacity: max(1, options.maximumConnections),
            maximumFree: options.maximumFreeBuffers)
        budget = PageBudget(pages: options.budgetPages, locking: options.locking)
        let listener = try Socket.listener(on: address)
        self.address = try listener.localAddress
        let port = try CompletionPort(concurrency: options.concurrency, options: options.port)
        let house = ThriftyHouse(
            port: port, budget: budget, slab: slab, modes: ModeSwitch(policy),
            maximumConnections: options.maximumConnections, beforeReading: options.beforeReading)
        self.house = house
        let acceptor = Acceptor(listener: listener, house: house, keepAlive: options.keepAlive)
        self.acceptor = acceptor
        try port.associate(listener, key: 0)
        workers = try WorkerGroup(options.workers, on: port) { packet, error in
            if let connection = packet.operation as? ThriftyConnection {
                connection.handle(packet, error)
            } else if let acceptance = packet.operation as? Acceptance {
                acceptor.accepted(acceptance, error)
            }
        }
        for _ in 0..<options.pendingAccepts { try acceptor.post(Acceptance()) }
    }

    /// What the server has done so far.
    public var counters: Counters { house.counters }

    /// How connections wait for bytes at this moment.
    public var mode: ReceiveMode { house.modes.mode }

    /// The interface that carries its operations out.
    public var driverKind: DriverKind { house.port.driverKind }

    /// Closes every connection, waits until every page and every buffer is back, and ends every thread.
    ///
    /// - Returns: false when something was not back in time: then something is wrong, and the counters say what.
    @discardableResult
    public func stop() -> Bool {
        acceptor.listener.close()
        let isClean = house.closeAll()
        workers.stop()
        return isClean && budget.counters.locked == 0 && slab.counters.inUse == 0
    }
}

/// An accept, with the socket that it will fill and room for two addresses.
private final class Acceptance: Overlapped, @unchecked Sendable {
    var socket = Socket()
    // This object's own, and it lives as long as it is pending.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * Address.capacity, alignment: 16)

    deinit { memory.deallocate() }
}

/// Keeps accepts pending. (Chapter 03 does this properly; here a failed accept is posted again after a pause.)
private struct Acceptor: Sendable {
    let listener: Socket
    let house: ThriftyHouse
    let keepAlive: KeepAlive?
    /// Microseconds after a failed accept, such as for want of a descriptor.
    private static let backOff: UInt32 = 20_000

    func post(_ acceptance: Acceptance) throws(SystemError) {
        acceptance.socket = Socket()
        Recorder.label(acceptance.identity, "accept")
        try listener.accept(acceptance, acceptance.socket, into: acceptance.memory, receiveLength: 0)
    }

    func accepted(_ acceptance: Acceptance, _ error: SystemError?) {
        if let error {
            // The listener was closed: this one is over.
            if CloseReason(error) == .cancelled { return }
            house.port.blocking { _ = usleep(Acceptor.backOff) }
            try? post(acceptance)
            return
        }
        let socket = acceptance.socket
        try? post(acceptance)
        // A client that is gone already will be noticed by its first receive.
        try? socket.setNoDelay()
        try? keepAlive?.apply(to: socket)
        house.admit(socket)
    }
}
