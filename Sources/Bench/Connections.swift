import CKernel
import Glibc
import Kernel
import PrepostedAccepts
import Stage

/// Connections per second: connect, one message there and back, close. The server is on the first processor, the clients
/// on the second.
enum Connections {
    private static let messageSize = 64
    /// Clients that are connected at a time.
    private static let atOnce = 16

    static func measure(seconds: Double, into figures: inout Figures) throws {
        var contenders = [Echo.Contender(name: "plain accept loop", start: plainLoop)]
        for driver in DriverKind.permitted {
            contenders.append(preposted("preposted accepts, \(driver)", driver))
        }
        for contender in contenders {
            ck_pin_thread(0, 0)
            let (address, stop) = try contender.start()
            ck_pin_thread(0, 1)
            let before = Resources.processTime
            let own = Resources.threadTime
            let rate = try load(address, seconds: seconds)
            let used = Resources.processTime - before - (Resources.threadTime - own)
            stop()
            figures.add("\(contender.name)", "connections/s", rate.perSecond)
            figures.add(
                "\(contender.name): processor", "µs/connection",
                used / .microseconds(1) / Double(max(1, rate.count)))
        }
    }

    private static func plainLoop() throws -> (Address, () -> Void) {
        let server = try PlainLoop()
        return (server.address, { server.stop() })
    }

    private static func preposted(_ name: String, _ driver: DriverKind) -> Echo.Contender {
        Echo.Contender(name: name) {
            var options = PrepostedServer.Options()
            options.workers = 1
            options.concurrency = 1
            options.port.driver = driver
            let server = try PrepostedServer(options: options)
            return (server.address, { server.stop() })
        }
    }

    /// Clients on this thread: a few at a time connect and speak, then each hears its message and closes.
    static func load(_ server: Address, seconds: Double) throws -> (count: Int, perSecond: Double) {
        let message = UnsafeMutableRawBufferPointer.allocate(byteCount: messageSize, alignment: 16)
        defer { message.deallocate() }
        message.initializeMemory(as: UInt8.self, repeating: 7)
        let deadline = Deadline.after(.seconds(seconds))
        let start = monotonicNanoseconds()
        var count = 0
        while !deadline.hasPassed {
            var clients: [Socket] = []
            for index in 0..<atOnce {
                // Every address has ports of its own: those of closed connections are not free for a minute.
                let local = Address("127.0.\((count / 4_000) % 200 + 1).\(index + 2)", port: 0)!
                let client = try Socket.connected(to: server, from: local)
                _ = try client.sendNow(.init(message))
                clients.append(client)
            }
            for client in clients {
                try client.setBlocking(true)
                guard try client.receiveNow(into: message) == messageSize else {
                    throw SystemError(EBADMSG, attempted: "hear one message")
                }
                client.close()
            }
            count += atOnce
        }
        let elapsed = Double(monotonicNanoseconds() - start) / 1e9
        return (count, Double(count) / elapsed)
    }

    static func compare(_ figures: inout Figures) {
        for driver in DriverKind.permitted {
            let name = "preposted accepts, \(driver)"
            figures.compare(name, to: "plain accept loop", driver == .epoll ? .atLeast(0.95) : nil)
            figures.compare("\(name): processor", to: "plain accept loop: processor", nil)
        }
    }
}
