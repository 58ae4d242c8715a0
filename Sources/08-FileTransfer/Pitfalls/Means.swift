import CompletionPorts
import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import Stage

/// A folder of its own under `/tmp`, gone with everything in it when the last reference is.
public final class ScratchFolder: Sendable {
    /// Where it is.
    public let path: String

    /// Makes the folder, under a name that nobody has.
    public init() throws(SystemError) {
        var template = Array("/tmp/file-transfer-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemError(errno, attempted: "make a folder in /tmp") }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit {
        for name in names { unlink("\(path)/\(name)") }
        rmdir(path)
    }

    /// What is in it, in order.
    public var names: [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// The path of a file in it.
    public func path(of name: String) -> String { "\(path)/\(name)" }

    /// Makes a file of so many bytes, none like its neighbours, and returns its path.
    @discardableResult
    public func make(_ name: String, bytes: Int, seed: Int = 1) throws(SystemError) -> String {
        let content = ScratchFolder.pattern(bytes, seed: seed)
        let file = try File(path(of: name), for: .writing)
        defer { file.close() }
        var done = 0
        while done < bytes {
            let count = content.withUnsafeBytes {
                pwrite(file.descriptor, $0.baseAddress! + done, bytes - done, done)
            }
            if count <= 0 { throw SystemError(errno, attempted: "write \(path(of: name))") }
            done += count
        }
        return path(of: name)
    }

    /// Makes a file that has a length and takes no room.
    @discardableResult
    public func makeSparse(_ name: String, bytes: Int64) throws(SystemError) -> String {
        let file = try File(path(of: name), for: .writing)
        defer { file.close() }
        try file.setSize(bytes)
        return path(of: name)
    }

    /// Everything in a file; nil when there is none.
    public func contents(_ name: String) -> [UInt8]? {
        guard let file = try? File(path(of: name)), let size = try? file.size else { return nil }
        defer { file.close() }
        var bytes = [UInt8](repeating: 0, count: Int(size))
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                pread(file.descriptor, $0.baseAddress! + done, $0.count - done, done)
            }
            if count <= 0 { return nil }
            done += count
        }
        return bytes
    }

    /// Bytes that repeat only after a long while, so that a piece at a wrong place is noticed.
    public static func pattern(_ count: Int, seed: Int = 1) -> [UInt8] {
        if count == 0 { return [] }
        var word = UInt64(truncatingIfNeeded: seed) &* 0x9E37_79B9_7F4A_7C15 | 1
        return [UInt8](unsafeUninitializedCapacity: count) { bytes, filled in
            for index in 0..<count {
                if index & 7 == 0 { word = word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407 }
                bytes[index] = UInt8(truncatingIfNeeded: word >> UInt64((index & 7) * 8))
            }
            filled = count
        }
    }
}

/// One side: a service of chapter 06 whose connections carry files, and what they say.
public final class FileSide: Sendable {
    /// What its connections have in common.
    public let files: FileService
    /// The connections.
    public let service: FramedService<LengthPrefixed>
    private let made = Guarded<[FileTransfer]>([])
    private let words: @Sendable ([UInt8], FramedConnection<LengthPrefixed>) -> Void

    /// - Parameter words: Called with each message of the other side that is not about files.
    public init(
        _ options: TransferOptions, codec: LengthPrefixed = TransferMessage.codec,
        events: FileEvents = FileEvents(),
        words: @escaping @Sendable ([UInt8], FramedConnection<LengthPrefixed>) -> Void = { _, _ in }
    ) throws(SystemError) {
        files = try FileService(options, events: events)
        service = try FramedService(codec, options: options.streams, round: files.round)
        self.words = words
    }

    private func handler() -> FileTransfer {
        let transfer = FileTransfer(files, around: Words(words))
        made.locked { $0.append(transfer) }
        return transfer
    }

    /// Listens.
    @discardableResult
    public func listen(on address: Address = .loopback()) throws(SystemError) -> Address {
        try service.listen(on: address) { [self] in handler() }
    }

    /// Connects.
    public func connect(to address: Address) throws(SystemError) -> FileTransfer {
        let transfer = handler()
        try service.connect(to: address, handler: transfer)
        return transfer
    }

    /// Takes a connection over.
    public func adopt(_ socket: Socket) throws(SystemError) -> FileTransfer {
        let transfer = handler()
        try service.adopt(socket, handler: transfer)
        return transfer
    }

    /// Those that stand.
    public var connections: [FileTransfer] {
        made.locked { made in
            made.removeAll { $0.isOver }
            return made.filter { $0.connection != nil }
        }
    }

    /// Where everything completes.
    public var port: CompletionPort { service.hub.port }

    /// Whether everything is back.
    @discardableResult
    public func stop() -> Bool { service.stop() && files.isIdle }
}

/// The program's own handler: tells what is said.
private final class Words: FrameHandler {
    private let told: @Sendable ([UInt8], FramedConnection<LengthPrefixed>) -> Void

    init(_ told: @escaping @Sendable ([UInt8], FramedConnection<LengthPrefixed>) -> Void) { self.told = told }

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        told(message.withUnsafeBytes { Array($0) }, connection)
    }
}

extension FramedConnection {
    /// Answers with some bytes.
    public func reply(_ bytes: [UInt8]) throws(FrameError) { try reply(bytes.span.bytes) }
}

extension FileTransfer {
    /// Says something that has nothing to do with files.
    public func say(_ words: [UInt8]) throws(SystemError) {
        guard let connection else { throw SystemError(ENOTCONN, attempted: "say something") }
        try connection.send(words.span.bytes)
    }

    /// Ends the connection.
    public func close() { connection?.close() }

    /// Waits until the connection stands.
    public func waitUntilOpen() -> FileTransfer {
        _ = eventually { connection != nil }
        return self
    }
}

/// A server with a folder, and what it was told.
public final class Stand: Sendable {
    /// Where files arrive.
    public let folder: ScratchFolder
    /// Where the client's files are.
    public let home: ScratchFolder
    /// The server.
    public let server: FileSide
    /// Where it listens.
    public let address: Address
    private let driver: DriverKind
    private let log = Log()

    private final class Log: Sendable {
        let received = Guarded<[TransferResult]>([])
        let sent = Guarded<[TransferResult]>([])
        let words = Guarded<[[UInt8]]>([])
    }

    /// Starts a server on a driver.
    public init(_ driver: DriverKind, _ change: (inout TransferOptions) -> Void = { _ in })
        throws(SystemError)
    {
        self.driver = driver
        folder = try ScratchFolder()
        home = try ScratchFolder()
        var options = Stand.options(driver, folder: folder.path)
        change(&options)
        let log = log
        var events = FileEvents()
        events.received = { _, result in log.received.locked { $0.append(result) } }
        events.sent = { _, result in log.sent.locked { $0.append(result) } }
        server = try FileSide(options, events: events) { words, _ in log.words.locked { $0.append(words) } }
        address = try server.listen()
    }

    /// Options for scenarios: small pieces and chunks, so that a small file takes many steps.
    public static func options(_ driver: DriverKind, folder: String? = nil) -> TransferOptions {
        var options = TransferOptions(folder: folder)
        options.pieceLimit = 16 << 10
        options.streams.chunkCapacity = 8 << 10
        options.streams.maximumReadSize = 8 << 10
        options.streams.port.driver = driver
        return options
    }

    /// A client of it.
    public func client(_ change: (inout TransferOptions) -> Void = { _ in }) throws(SystemError) -> Client {
        var options = Stand.options(driver)
        change(&options)
        return try Client(options, address)
    }

    /// What has become of files that came unasked.
    public var received: [TransferResult] { log.received.locked { $0 } }
    /// What has become of files that were asked for.
    public var sent: [TransferResult] { log.sent.locked { $0 } }
    /// The messages that came.
    public var words: [[UInt8]] { log.words.locked { $0 } }

    /// Waits until so many files have come, or have come to nothing.
    public func hasReceived(_ count: Int) -> Bool { eventually { received.count >= count } }
}

/// A side with one connection.
public final class Client: Sendable {
    /// The side.
    public let hub: FileSide
    /// What the connection carries.
    public let connection: FileTransfer

    init(_ options: TransferOptions, _ address: Address) throws(SystemError) {
        hub = try FileSide(options)
        connection = try hub.connect(to: address)
    }

    /// Whether everything is back.
    public func stop() -> Bool { hub.stop() }
}

extension Result where Success == TransferReceipt, Failure == TransferError {
    /// What went wrong.
    public var failure: TransferFailure? {
        if case .failure(let error) = self { error.failure } else { nil }
    }
}

/// The other side, played line by line with plain calls that block: a peer that can say anything.
/// For one thread at a time.
public final class ScriptedPeer: @unchecked Sendable {
    /// The connection.
    public let socket: Socket
    private let reader = FrameReader(TransferMessage.codec)
    private var said: [Said] = []
    /// Raw bytes of pieces that have come.
    public private(set) var raw: [UInt8] = []

    /// Connects.
    public init(to address: Address, from host: Address? = nil) throws(SystemError) {
        socket = try Socket.connected(to: address, from: host)
        try socket.setNoDelay()
    }

    /// Plays the side of a server: the connection has been accepted.
    public init(_ socket: Socket) { self.socket = socket }

    deinit { socket.close() }

    /// What the other side says.
    public enum Said: Equatable, Sendable {
        /// Something about files.
        case file(TransferMessage)
        /// Something else.
        case words([UInt8])
    }

    /// Says something about files.
    public func say(_ message: TransferMessage) throws {
        try send(try message.frame())
    }

    /// Says something else.
    public func say(_ words: String) throws { try send(try ScriptedPeer.frame(words)) }

    /// Words as they are on the wire: behind a 0.
    public static func frame(_ words: String) throws -> [UInt8] {
        let bytes = Array(words.utf8)
        var frame = SplitBuffer(limit: TransferMessage.codec.maximumFrameLength)
        try TransferMessage.codec.append(tag: 0, bytes.span.bytes, to: &frame)
        return frame.withBytes { $0.withUnsafeBytes { Array($0) } }
    }

    /// Sends bytes as they are.
    public func send(_ bytes: [UInt8]) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let rest = Array(bytes[done...])
            let count = rest.withUnsafeBytes { bytes in
                Result { () throws(SystemError) in try socket.sendNow(bytes) }
            }
            if let count = try count.get() { done += count } else { try wait(POLLOUT) }
        }
    }

    private func wait(_ wish: Int32) throws(SystemError) {
        var poll = pollfd(fd: socket.descriptor, events: Int16(wish), revents: 0)
        if Glibc.poll(&poll, 1, isSanitized ? 30_000 : 10_000) == 0 {
            throw SystemError(ETIMEDOUT, attempted: "wait for the other side")
        }
    }

    /// What is said next about files, for a bounded time; nil at the end of the stream. Words before it are passed over.
    public func hear() throws -> TransferMessage? {
        while let next = try hearAny() {
            if case .file(let message) = next { return message }
        }
        return nil
    }

    /// The next words; what is said about files before them is passed over.
    public func hearWords() throws -> [UInt8]? {
        while let next = try hearAny() {
            if case .words(let words) = next { return words }
        }
        return nil
    }

    /// Whatever is said next, for a bounded time; nil at the end of the stream.
    public func hearAny() throws -> Said? {
        var memory = [UInt8](repeating: 0, count: 65_536)
        while said.isEmpty {
            let count = try memory.withUnsafeMutableBytes { try socket.receiveNow(into: $0) }
            guard let count else {
                try wait(POLLIN)
                continue
            }
            if count == 0 { return nil }
            try reader.read(
                memory.span.bytes.extracting(first: count),
                raw: { raw += memory[$0] },
                message: { frame in
                    guard let message = try? TransferMessage(frame) else {
                        return said.append(.words(frame.withUnsafeBytes { Array($0.dropFirst()) }))
                    }
                    if message.kind == .piece { reader.passThrough(Int(message.count)) }
                    said.append(.file(message))
                })
        }
        return said.removeFirst()
    }

    /// Takes bytes of the stream, whatever they mean.
    public func take(_ count: Int) throws {
        var memory = [UInt8](repeating: 0, count: max(1, count))
        var done = 0
        while done < count {
            let more = try memory.withUnsafeMutableBytes {
                try socket.receiveNow(into: UnsafeMutableRawBufferPointer(rebasing: $0[done..<count]))
            }
            if more == 0 { return }
            if let more { done += more } else { try wait(POLLIN) }
        }
    }

    /// Whether the connection has ended by now, or does within a bounded time.
    public func hearEnd() -> Bool {
        do { while try hear() != nil {} } catch { return (error as? SystemError)?.code == ECONNRESET }
        return true
    }
}

/// A listener for a scripted side: the library connects, and the script answers.
public final class ScriptedServer {
    private let listener: Socket
    /// Where it listens.
    public let address: Address

    /// Listens.
    public init() throws(SystemError) {
        listener = try Socket.listener(on: .loopback())
        address = try listener.localAddress
        try listener.setBlocking(true)
    }

    deinit { listener.close() }

    /// The next connection.
    public func accept() throws(SystemError) -> ScriptedPeer {
        guard let socket = try listener.acceptNow() else {
            throw SystemError(EAGAIN, attempted: "accept a connection that stands")
        }
        try socket.setNoDelay()
        return ScriptedPeer(socket)
    }
}

/// What became of a transfer, for a thread that waits for it.
public final class Outcome: Sendable {
    private let result = Guarded<TransferResult?>(nil)
    private let isOver = Gate()

    /// Nothing yet.
    public init() {}

    /// Tells this object.
    public var observer: TransferObserver {
        TransferObserver(finished: { [self] result in
            self.result.locked { $0 = result }
            isOver.open()
        })
    }

    /// How it ended; nil when it did not in bounded time.
    public func wait(within patience: Duration = Gate.patience) -> TransferResult? {
        isOver.pass(within: patience) ? result.locked { $0 } : nil
    }

    /// Whether it is over.
    public var hasEnded: Bool { isOver.isOpen }
}

/// A port on one driver, served by the calling thread: packet by packet, so that a scenario says when each is handled.
struct OwnPort {
    let port: CompletionPort

    init(_ driver: DriverKind) throws(SystemError) {
        var options = CompletionPort.Options()
        options.driver = driver
        port = try CompletionPort(concurrency: 1, options: options)
    }

    /// The next packet, whether it tells of a success or a failure.
    func next() throws(SystemError) -> Packet {
        switch port.dequeue(timeout: Gate.patience) {
        case .completed(let packet), .failed(let packet, _): return packet
        case .timedOut: throw SystemError(ETIMEDOUT, attempted: "wait for a packet")
        case .closed: throw SystemError.closed("wait for a packet")
        }
    }
}
