import CompletionPorts
import Contexts
import Kernel
import Stage
import Timeline

/// ⚠︎ Broken on purpose: several reads are pending, several workers take their packets, and each worker processes what it
/// has got as soon as it has got it.
public final class BrokenStream: @unchecked Sendable {
    private let socket: Socket
    private let workers: WorkerGroup

    /// Starts to read.
    ///
    /// - Parameters:
    ///   - arrived: A worker has the packet of the read with this number.
    ///   - process: It has these bytes. None at the end of the stream.
    public init(
        _ driver: DriverKind?, _ socket: Socket, reads: Int = 3, workers count: Int = 2, capacity: Int = 4,
        arrived: @escaping @Sendable (Int) -> Void,
        process: @escaping @Sendable (_ number: Int, _ bytes: [UInt8]) -> Void
    ) throws(SystemError) {
        self.socket = socket
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: count, options: options)
        try port.associate(socket, key: 1)
        let next = Guarded(0)
        workers = try WorkerGroup(count, on: port) { packet, error in
            guard let read = packet.operation as? Read, error == nil else { return }
            arrived(read.number)
            process(read.number, read.contents)
            if packet.bytes > 0 { try BrokenStream.post(read, on: socket, next) }
        }
        for _ in 0..<reads { try BrokenStream.post(Read(capacity: capacity), on: socket, next) }
    }

    private static func post(_ read: Read, on socket: Socket, _ next: Guarded<Int>) throws(SystemError) {
        try next.locked { next throws(SystemError) in
            read.number = next
            next += 1
            Recorder.label(read.identity, "read \(read.number)")
            try read.post(on: socket)
        }
    }

    /// Ends the connection and the workers.
    public func stop() {
        socket.close()
        workers.stop()
    }
}

/// What three packets of a broken stream have come to, when the worker with one of them is held until another is there.
final class BrokenTranscript: Sendable {
    private let state = Guarded<(received: [UInt8], dropped: [UInt8], isClosed: Bool)>(([], [], false))
    private let stream: BrokenStream
    private let packets: Gate

    init(_ driver: DriverKind, _ socket: Socket, holding held: Int, until opener: Int) throws(SystemError) {
        let (gate, packets) = (Gate(), Gate(count: 3))
        self.packets = packets
        let state = state
        stream = try BrokenStream(driver, socket) { number in
            if number == held { gate.pass() }
            if number == opener { gate.open() }
        } process: { _, bytes in
            state.locked { state in
                if bytes.isEmpty {
                    state.isClosed = true
                } else if state.isClosed {
                    state.dropped += bytes
                } else {
                    state.received += bytes
                }
            }
            packets.open()
        }
    }

    /// When three packets have been processed: what was received, and what came when it was over.
    func finish() -> (received: String, dropped: String) {
        packets.pass()
        stream.stop()
        return state.locked { (text($0.received), text($0.dropped)) }
    }
}
