import Glibc
import Kernel

/// A plain load of echo clients: each sends a message, waits until all of it has come back, compares every byte, and
/// sends the next one.
///
/// One thread drives all clients over epoll, without any of this package's ports: it measures them, so it must not be
/// made of them. It connects to the loopback only.
public struct ClientLoad: Sendable, Equatable {
    /// The most connections of a load.
    public static let maximumConnections = 200_000
    /// The largest message, in bytes.
    public static let maximumMessageSize = 16 << 20
    /// A load of more connections than this belongs in a child process.
    public static let connectionsInProcess = 5_000
    /// Connections that are being made at a time, at most, so that the server's queue does not overflow.
    public static let connectsAtOnce = 256

    /// Where the echo server listens: an address in 127.0.0.0/8, or ::1.
    public var server: Address
    /// How many clients connect.
    public var connections: Int
    /// How long a message is, in bytes.
    public var messageSize: Int
    /// How long the messages go on at most. The time begins when all clients are connected.
    public var duration: Duration
    /// Round trips after which a client has done; `nil` leaves it to the time.
    public var roundTripsEach: Int?
    /// How long connecting may take in all.
    public var connectLimit: Duration
    /// An address has about 28,000 ports to connect from. More connections than this are spread over 127.0.0.2,
    /// 127.0.0.3 and so on.
    public var connectionsPerAddress = 25_000

    /// Frames in a message, all of the same size, each behind its length: four bytes, the most significant first,
    /// which do not count themselves. 0 for bytes without a meaning.
    public var framesEach = 0

    /// Describes a load.
    public init(
        to server: Address, connections: Int = 1, messageSize: Int = 64, duration: Duration = .seconds(1),
        roundTripsEach: Int? = nil, connectLimit: Duration = .seconds(20)
    ) {
        self.server = server
        self.connections = connections
        self.messageSize = messageSize
        self.duration = duration
        self.roundTripsEach = roundTripsEach
        self.connectLimit = connectLimit
    }

    /// What a load has measured.
    public struct Report: Sendable, Equatable {
        /// Messages that came back whole and right.
        public internal(set) var roundTrips = 0
        /// How long the messages went on.
        public internal(set) var elapsed = Duration.zero
        /// How long a round trip took.
        public internal(set) var latency = LatencyHistogram()
        /// Clients that never got an answer.
        public internal(set) var silent = 0
        /// The processor time that the clients used.
        public internal(set) var processorTime = Duration.zero

        /// Round trips in a second.
        public var perSecond: Double {
            let seconds = elapsed / .seconds(1)
            return seconds > 0 ? Double(roundTrips) / seconds : 0
        }
    }

    /// Why a load failed.
    public enum Failure: Error, Equatable, CustomStringConvertible {
        /// The load is not one that can be run: what is wrong with it.
        case impossible(String)
        /// A call to the system failed.
        case system(SystemError)
        /// Not all clients were connected in time.
        case connectingTook(connected: Int, of: Int)
        /// The server closed a connection.
        case closedByServer(client: Int, afterRoundTrips: Int)
        /// What came back is not what was sent; or more came back than was sent.
        case wrongBytes(client: Int, roundTrip: Int)
        /// The time was over before all round trips were made.
        case unfinished(roundTrips: Int, of: Int)
        /// The child process failed; its words.
        case child(String)

        /// One line.
        public var description: String {
            switch self {
            case .impossible(let what): "load: \(what)"
            case .system(let error): "load: \(error)"
            case .connectingTook(let connected, let all):
                "load: only \(connected) of \(all) clients connected in time"
            case .closedByServer(let client, let trips):
                "load: the server closed the connection of client \(client) after \(trips) round trips"
            case .wrongBytes(let client, let trip):
                "load: client \(client) got wrong bytes back in round trip \(trip)"
            case .unfinished(let trips, let all):
                "load: only \(trips) of \(all) round trips were made in time"
            case .child(let words): words
            }
        }
    }

    /// Runs the load on the calling thread and returns when it is over. All its connections are then closed, with a
    /// reset: orderly ends would leave the system thousands of ports that cannot be used for a minute.
    public func run() throws(Failure) -> Report {
        if let fault { throw .impossible(fault) }
        Resources.raiseDescriptorLimit(atLeast: connections + Resources.spareDescriptors)
        return try LoadLoop(self).run()
    }

    private var fault: String? {
        if !(server.host.hasPrefix("127.") || server.host == "::1") {
            return "\(server) is not on the loopback"
        }
        if server.port == 0 { return "the server's port is missing" }
        if !(1...ClientLoad.maximumConnections).contains(connections) {
            return "1 to \(ClientLoad.maximumConnections) clients can connect, not \(connections)"
        }
        if server.isIPv6 && connections > connectionsPerAddress {
            return "::1 has ports for \(connectionsPerAddress) clients, not for \(connections)"
        }
        if connectionsPerAddress < 1 || connections / connectionsPerAddress > 250 {
            return "\(connectionsPerAddress) connections for each address are too few"
        }
        if !(1...ClientLoad.maximumMessageSize).contains(messageSize) {
            return "a message has 1 to \(ClientLoad.maximumMessageSize) bytes, not \(messageSize)"
        }
        if framesEach < 0 || framesEach > 0 && (messageSize % framesEach != 0 || messageSize / framesEach < 4)
        {
            return "\(messageSize) bytes are not \(framesEach) frames"
        }
        if let roundTripsEach, roundTripsEach < 1 { return "\(roundTripsEach) round trips are none" }
        return nil
    }
}
