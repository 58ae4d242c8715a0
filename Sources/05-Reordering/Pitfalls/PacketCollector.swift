import Contexts
import Glibc
import Kernel
import Reordering

/// A packet with its number on the wire: 16 bytes, the least significant of each number first.
///
/// Here the *sender* gives the numbers, so the packets may take any ways they like: several connections, too.
public struct NumberedPacket: Sendable, Equatable {
    /// Bytes on the wire.
    public static let size = 16
    /// Who sends it: the same on all connections of that sender.
    public var client: UInt32
    /// Its place among the sender's packets.
    public var number: SequenceNumber
    /// What it says.
    public var value: UInt64

    /// A packet.
    public init(client: UInt32, number: SequenceNumber, value: UInt64) {
        self.client = client
        self.number = number
        self.value = value
    }

    /// The packet in `size` bytes. They need not be aligned.
    public init(_ bytes: UnsafeRawBufferPointer) {
        client = UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self))
        number = SequenceNumber(
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
        value = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    /// The packet's bytes.
    public var bytes: [UInt8] {
        withUnsafeBytes(of: (client.littleEndian, number.value.littleEndian, value.littleEndian), Array.init)
    }
}

/// Puts the numbered packets of many senders, each on several connections, back in order.
///
/// Each sender has a window of its own, and after each chunk hears how far it has come: four bytes with the number that is
/// expected next. It may be as many packets ahead as the window has room for; who is further ahead is told so by the end of
/// its connection. So a sender costs one window, whatever it does. (I5.3) Any thread may call it.
public final class PacketCollector: Sendable {
    /// Packets of one sender that may be ahead of a missing one.
    public let capacity: Int
    /// Senders at a time.
    public let maximumClients: Int
    private let delivered: @Sendable (NumberedPacket) -> Void
    private let placing: @Sendable (NumberedPacket) -> Void
    private let clients = Guarded<[UInt32: Client]>([:])

    /// A collector without senders.
    ///
    /// - Parameters:
    ///   - placing: Called before a packet is put into its sender's window, with the lock held. For tests.
    ///   - delivered: Called with every packet, once and in order, without a lock; for one sender by one worker at a time.
    public init(
        capacity: Int = 256, maximumClients: Int = 1024,
        placing: @escaping @Sendable (NumberedPacket) -> Void = { _ in },
        delivered: @escaping @Sendable (NumberedPacket) -> Void
    ) {
        self.placing = placing
        self.capacity = capacity
        self.maximumClients = maximumClients
        self.delivered = delivered
    }

    /// A handler for one more connection.
    public func handler() -> any StreamHandler { PacketReader(self) }

    /// Senders that there are, and packets that wait for an earlier one.
    public var counters: (clients: Int, waiting: Int) {
        let all = clients.locked { Array($0.values) }
        return (all.count, all.reduce(0) { $0 + $1.waiting })
    }

    /// Forgets a sender, and what waits of it.
    public func forget(_ client: UInt32) { clients.locked { _ = $0.removeValue(forKey: client) } }

    /// Takes a packet. What came before, or is there already, is not taken again, and that is no error.
    ///
    /// - Returns: The number that the sender's next packet has.
    /// - Throws: ENOBUFS when it is too far ahead, or there are too many senders.
    func take(_ packet: NumberedPacket) throws(SystemError) -> SequenceNumber {
        let client = clients.locked { clients -> Client? in
            if clients[packet.client] == nil, clients.count < maximumClients {
                clients[packet.client] = Client(capacity)
            }
            return clients[packet.client]
        }
        guard let expected = client?.take(packet, placing, delivered) else {
            throw SystemError(ENOBUFS, attempted: "take packet \(packet.number)")
        }
        return expected
    }
}

/// One sender: the same window as a connection's, and the same rule: one worker at a time hands over. (I5.2)
private final class Client: @unchecked Sendable {
    private let lock = Lock()
    // Guarded by the lock.
    private var window: ReorderWindow<NumberedPacket>
    private var isDraining = false

    init(_ capacity: Int) { window = ReorderWindow(capacity: capacity) }

    var waiting: Int { lock.locked { window.count } }

    func take(
        _ packet: NumberedPacket, _ placing: (NumberedPacket) -> Void, _ deliver: (NumberedPacket) -> Void
    ) -> SequenceNumber? {
        lock.lock()
        defer { lock.unlock() }
        placing(packet)
        if window.insert(packet, packet.number) == .beyond { return nil }
        guard !isDraining else { return window.expected }
        isDraining = true
        while let next = window.takeNext() {
            lock.unlock()
            deliver(next)
            lock.lock()
        }
        isDraining = false
        return window.expected
    }
}

/// Cuts a connection's stream into packets. (Of any length: chapter 06.)
private final class PacketReader: StreamHandler {
    private let collector: PacketCollector
    private let rest = Guarded<[UInt8]>([])

    init(_ collector: PacketCollector) { self.collector = collector }

    func received(_ chunk: Chunk, on connection: StreamConnection) {
        let packets = rest.locked { rest in
            rest.append(contentsOf: chunk.contents)
            let whole = rest.count - rest.count % NumberedPacket.size
            defer { rest.removeFirst(whole) }
            return rest.withUnsafeBytes { bytes in
                stride(from: 0, to: whole, by: NumberedPacket.size).map {
                    NumberedPacket(.init(rebasing: bytes[$0...]))
                }
            }
        }
        do throws(SystemError) {
            // Whoever they are delivered to is called without a lock.
            var expected: SequenceNumber?
            for packet in packets { expected = try collector.take(packet) }
            guard let answer = expected?.value.littleEndian else { return }
            // A sender that does not listen to its answers has too many of them at some time.
            try connection.send(withUnsafeBytes(of: answer, Array.init))
        } catch {
            connection.close(CloseReason(error))
        }
    }
}
