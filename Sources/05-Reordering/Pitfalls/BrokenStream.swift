import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: several reads are pending, several workers take their packets, and each worker appends what it
/// has got as soon as it has got it.
final class BrokenStream: @unchecked Sendable {
    private let socket: Socket
    private let workers: WorkerGroup
    let received = Guarded<[UInt8]>([])
    let dropped = Guarded<[UInt8]>([])
    let packets = Gate(count: 3)
    private let isClosed = Guarded(false)

    init(_ driver: DriverKind, _ socket: Socket, holding held: Int, until opener: Int) throws(SystemError) {
        self.socket = socket
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 2, options: options)
        try port.associate(socket, key: 1)
        let gate = Gate()
        let (received, dropped, packets, isClosed) = (received, dropped, packets, isClosed)
        workers = try WorkerGroup(2, on: port) { packet, _ in
            guard let read = packet.operation as? Read else { return }
            if read.number == held { gate.pass() }
            if read.number == opener { gate.open() }
            if packet.bytes == 0 {
                isClosed.locked { $0 = true }
            } else if isClosed.locked({ $0 }) {
                dropped.locked { $0 += read.contents }
            } else {
                received.locked { $0 += read.contents }
            }
            packets.open()
        }
        for number in 0..<3 {
            let read = Read()
            read.number = number
            try read.post(on: socket)
        }
    }

    func stop() {
        socket.close()
        workers.stop()
    }
}
