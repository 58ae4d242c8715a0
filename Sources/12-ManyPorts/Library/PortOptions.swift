import Kernel
import Reordering

extension PortSet {
    /// The limits and choices.
    public struct Options: Sendable {
        /// How many ports.
        public var ports = Kernel.Thread.processors
        /// Workers that each of them has. More than one may run at a time then, and bytes are put in order again.
        public var workersEach = 1
        /// Which port gets a new connection.
        public var placement = Placement.roundRobin
        /// Which connections are moved.
        public var balance = Balancer.Options()
        /// How often traffic is measured and connections are moved; nil for never, or by `rebalanceNow`.
        public var interval: Duration? = .seconds(1)
        /// How long a move may wait for sends that are pending. Then it is given up, and the connection goes on where it was.
        public var longestMove = Duration.seconds(1)
        /// Told of each move, by the last worker that was called for the connection on its former port, and before the first
        /// on the new one is. Without a lock.
        public var moved: @Sendable (_ connection: StreamConnection, _ from: Int, _ to: Int) -> Void = {
            _, _, _ in
        }
        /// What connections are like. Its workers and its choice of ports are the set's.
        public var streams = StreamHub.Options()
        /// Called when nothing of a connection is under way any more and it has not been moved yet, with its lock held. For tests.
        package var beforeMove: @Sendable (StreamConnection) -> Void = { _ in }

        /// The defaults.
        public init() {}
    }

    /// A load is measured in packets. That many bytes are as much work as one: the system copies them.
    static let bytesLikeAPacket = 16_384.0

    /// What has happened so far.
    public struct Counters: Sendable, Equatable {
        /// For each port.
        public internal(set) var ports: [PortCounters]
        /// Of all of them.
        public internal(set) var moves: MoveCounters
    }

    /// What has gone through a port.
    public struct PortCounters: Sendable, Equatable {
        /// Connections that it has now.
        public internal(set) var connections = 0
        /// Chunks received and sends completed.
        public internal(set) var packets = 0
        /// Bytes received and sent.
        public internal(set) var bytes = 0
        /// Packets in a second, averaged, when it was measured last. 16 KiB count as much as a packet.
        public internal(set) var load = 0.0
    }

    /// What has become of the moves. When none is under way, as many were made or given up as have begun.
    public struct MoveCounters: Sendable, Equatable {
        /// Moves that have begun.
        public internal(set) var begun = 0
        /// Connections that have changed their port.
        public internal(set) var made = 0
        /// Moves that did not come to their end: the connection was over, or said that it stays, or had sends pending for too long.
        public internal(set) var givenUp = 0
        /// Those that were not even begun: a file was under way, or another move.
        public internal(set) var refused = 0
    }
}
