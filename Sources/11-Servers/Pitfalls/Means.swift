import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import Reordering
import Servers
import Stage
import WorkerPools

/// A handler whose parts a scenario puts together, before anything is started.
public final class Program: EndpointHandler, @unchecked Sendable {
    // Set before the endpoint starts, and only read from then on.
    package var onAdmits: @Sendable (Address) -> Admission = { _ in .welcome }
    package var onMade: @Sendable (Session) -> Void = { _ in }
    package var onConnected: @Sendable (Session) -> Void = { _ in }
    package var onReceived: @Sendable ([UInt8], Session) -> Void = { _, _ in }
    package var onSent: @Sendable (Int, Session) -> Void = { _, _ in }
    package var onAcknowledged: @Sendable (Int) -> Void = { _ in }
    package var onDisconnected: @Sendable (Session, EndReason) -> Void = { _, _ in }
    package var onProcess: @Sendable (Job) throws -> [UInt8]? = { _ in nil }
    package var onReconnecting: @Sendable (Link, Int, Duration) -> Void = { _, _, _ in }
    package var onExpired: @Sendable (Limit, Session) -> Bool = { _, _ in false }
    package var onFile: @Sendable (TransferResult) -> Void = { _ in }
    /// What happened to sessions, in its order; what was refused; the lines of the log.
    package let story = Guarded<[String]>([])
    package let refusals = Guarded<[Refusal]>([])
    package let lines = Guarded<[String]>([])
    package let made = Counter(), released = Counter(), gaveUp = Counter(), lost = Counter()

    /// A program that does nothing but take notes.
    public init() {}

    /// A program that gives every message back.
    public static func echo() -> Program {
        let program = Program()
        program.onReceived = { message, session in try? session.reply(message.span.bytes) }
        return program
    }

    private func note(_ what: String) { story.locked { $0.append(what) } }

    /// See `EndpointHandler`.
    public func started(_ addresses: [Address]) { note("started") }
    /// See `EndpointHandler`.
    public func stopped(_ statistics: Statistics) { note("stopped") }
    /// See `EndpointHandler`.
    public func log(_ line: String) { lines.locked { $0.append(line) } }
    /// See `EndpointHandler`.
    public func admits(_ remote: Address, _ local: Address?) -> Admission {
        note("admits")
        return onAdmits(remote)
    }
    /// See `EndpointHandler`.
    public func refused(_ remote: Address?, _ why: Refusal) { refusals.locked { $0.append(why) } }
    /// See `EndpointHandler`.
    public func made(_ session: Session) {
        note("made")
        made.add()
        onMade(session)
    }
    /// See `EndpointHandler`.
    public func connected(_ session: Session) {
        note("connected")
        onConnected(session)
    }
    /// See `EndpointHandler`.
    public func received(_ message: RawSpan, _ session: Session) {
        onReceived(message.withUnsafeBytes { Array($0) }, session)
    }
    /// See `EndpointHandler`.
    public func sent(_ token: Int, _ bytes: Int, _ session: Session) { onSent(token, session) }
    /// See `EndpointHandler`.
    public func acknowledged(_ token: Int, _ session: Session) { onAcknowledged(token) }
    /// See `EndpointHandler`.
    public func fileFinished(_ result: TransferResult, _ session: Session) { onFile(result) }
    /// See `EndpointHandler`.
    public func expired(_ limit: Limit, _ session: Session) -> Bool { onExpired(limit, session) }
    /// See `EndpointHandler`.
    public func disconnected(_ session: Session, _ reason: EndReason) {
        note("disconnected: \(reason)")
        onDisconnected(session, reason)
    }
    /// See `EndpointHandler`.
    public func released(_ id: ConnectionID) { released.add() }
    /// See `EndpointHandler`.
    public func process(_ job: Job) throws -> [UInt8]? { try onProcess(job) }
    /// See `EndpointHandler`.
    public func connectionLost(_ link: Link, _ reason: EndReason) { lost.add() }
    /// See `EndpointHandler`.
    public func reconnecting(_ link: Link, attempt: Int, after: Duration) {
        onReconnecting(link, attempt, after)
    }
    /// See `EndpointHandler`.
    public func gaveUp(_ link: Link) { gaveUp.add() }
}

/// A server on a driver, started.
public func startServer(
    _ driver: DriverKind, _ program: any EndpointHandler = Program.echo(),
    _ configure: (inout ServerOptions) -> Void = { _ in }
) throws -> Server {
    var options = ServerOptions()
    options.endpoint.port.driver = driver
    configure(&options)
    let server = Server(options, handler: program)
    try server.start()
    return server
}

/// A client on a driver, started.
public func startClient(
    _ driver: DriverKind, to address: Address, _ program: any EndpointHandler,
    _ configure: (inout ClientOptions) -> Void = { _ in }
) throws -> Client {
    var options = ClientOptions()
    options.servers = [address]
    options.endpoint.port.driver = driver
    options.link.reconnection?.first = .milliseconds(5)
    options.link.reconnection?.longest = .milliseconds(50)
    configure(&options)
    let client = Client(options, handler: program)
    try client.start()
    return client
}

/// A client with plain calls, that speaks in frames of four bytes of length and a message.
public struct PlainClient: Sendable {
    /// The client's end.
    public let socket: Socket

    /// Connects.
    public init(to address: Address, from host: String? = nil) throws(SystemError) {
        socket = try Socket.connected(to: address, from: host.flatMap { Address($0, port: 0) })
        try socket.setNoDelay()
    }

    /// A message as it is on the wire.
    public static func frame(_ message: [UInt8]) -> [UInt8] {
        withUnsafeBytes(of: UInt32(message.count).bigEndian) { Array($0) } + message
    }

    /// Says something.
    public func say(_ text: String) throws(SystemError) {
        try socket.say(PlainClient.frame(Array(text.utf8)))
    }

    /// The next message; nil at the end, and when none comes in time.
    public func hear(within patience: Duration = Gate.patience) -> String? {
        guard let head = try? socket.hearBytes(4, within: patience), head.count == 4 else { return nil }
        let count = head.reduce(0) { $0 << 8 | Int($1) }
        guard let message = try? socket.hearBytes(count, within: patience), message.count == count else {
            return nil
        }
        return String(decoding: message, as: UTF8.self)
    }

    /// Whether what it says comes back.
    public func isEchoed(_ text: String = "hello", within patience: Duration = Gate.patience) -> Bool {
        (try? say(text)) != nil && hear(within: patience) == text
    }
}

/// A hub of chapter 05, and a stream handler made of two closures: for what is broken on purpose.
func startHub(
    _ driver: DriverKind, workers: Int = 2, _ configure: (inout StreamHub.Options) -> Void = { _ in }
)
    throws(SystemError) -> StreamHub
{
    var options = StreamHub.Options()
    (options.workers, options.port.driver) = (workers, driver)
    configure(&options)
    return try StreamHub(options)
}

final class StreamProgram: StreamHandler {
    let onReceived: @Sendable (Chunk, StreamConnection) -> Void
    let onClosed: @Sendable (CloseReason) -> Void

    init(
        received: @escaping @Sendable (Chunk, StreamConnection) -> Void = { chunk, connection in
            try? connection.send(chunk)
        }, closed: @escaping @Sendable (CloseReason) -> Void = { _ in }
    ) { (onReceived, onClosed) = (received, closed) }

    func received(_ chunk: Chunk, on connection: StreamConnection) { onReceived(chunk, connection) }
    func closed(_ connection: StreamConnection, _ reason: CloseReason) { onClosed(reason) }
}

/// Reads until the end, an error, or silence: what came, and whether the end was in order.
func readAll(_ socket: Socket, within patience: Duration = Gate.patience) -> (bytes: [UInt8], isWhole: Bool) {
    var all: [UInt8] = []
    let deadline = Deadline.after(patience)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 1)
    defer { memory.deallocate() }
    while true {
        do throws(SystemError) {
            guard let count = try socket.receiveNow(into: memory) else {
                if socket.waits(for: POLLIN, until: deadline) { continue }
                return (all, false)
            }
            if count == 0 { return (all, true) }
            all += memory[..<count]
        } catch { return (all, false) }
    }
}
