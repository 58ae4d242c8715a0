import CKernel
import Glibc
import Kernel
import Stage

/// A small echo server for the tests of the load, with faults on request. One thread, readiness, plain calls.
final class EchoServer: @unchecked Sendable {
    enum Fault: Sendable {
        case none
        /// Answers nothing.
        case silent
        /// Changes a byte of the answer once this many bytes have been answered.
        case wrongByte(after: Int)
        /// Sends an answer twice.
        case doubled
        /// Closes the connection once this many bytes have been answered.
        case closing(after: Int)
    }

    let address: Address
    private let listener: Socket
    private let fault: Fault
    private let stop = Gate()
    private var thread: Kernel.Thread?
    private let lock = Lock()
    private var open = 0  // under the lock, like what follows
    private var seen: Set<String> = []

    /// How many connections are open.
    var connections: Int { lock.locked { open } }
    /// The addresses that clients have come from.
    var hosts: Set<String> { lock.locked { seen } }

    init(on host: Address = .loopback(), fault: Fault = .none) throws {
        listener = try Socket.listener(on: host)
        address = try listener.localAddress
        self.fault = fault
        thread = startThread("echo server") { [self] in
            do { try serve() } catch { fatalError("\(error)") }
        }
    }

    func end() {
        stop.open()
        thread?.join()
        listener.close()
    }

    private func serve() throws {
        let poller = try Poller()
        var clients: [UInt64: (socket: Socket, answered: Int)] = [:]
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
        let events = UnsafeMutableBufferPointer<epoll_event>.allocate(capacity: 64)
        defer {
            buffer.deallocate()
            events.deallocate()
            for client in clients.values { client.socket.close() }
        }
        try poller.add(listener.descriptor, .readable, token: 0)
        while !stop.isOpen {
            let count = poller.wait(events, until: .after(.milliseconds(10)))
            for event in events.prefix(count) {
                if event.data.u64 == 0 {
                    while let socket = try listener.acceptNow() {
                        try poller.add(socket.descriptor, .readable, token: UInt64(socket.descriptor))
                        clients[UInt64(socket.descriptor)] = (socket, 0)
                        let host = try socket.remoteAddress.host
                        lock.locked { _ = seen.insert(host) }
                    }
                } else if let client = clients[event.data.u64] {
                    do {
                        let answered = try answer(client.socket, buffer, client.answered)
                        clients[event.data.u64] = answered.map { (client.socket, $0) }
                    } catch {
                        clients[event.data.u64] = nil
                    }
                    if clients[event.data.u64] == nil { client.socket.close() }
                }
            }
            lock.locked { open = clients.count }
        }
    }

    /// Answers what there is. Returns how many bytes were answered in all; nil when the connection is to be closed.
    private func answer(_ socket: Socket, _ buffer: UnsafeMutableRawBufferPointer, _ before: Int) throws
        -> Int?
    {
        guard let count = try socket.receiveNow(into: buffer) else { return before }
        if count == 0 { return nil }
        let answer = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
        switch fault {
        case .silent: return before
        case .closing(let limit) where before >= limit: return nil
        case .wrongByte(let limit) where before >= limit: answer[count - 1] ^= 1
        case .doubled: try send(socket, UnsafeRawBufferPointer(answer))
        default: break
        }
        try send(socket, UnsafeRawBufferPointer(answer))
        return before + count
    }

    private func send(_ socket: Socket, _ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while !rest.isEmpty {
            guard let count = try socket.sendNow(rest) else {
                usleep(100)
                continue
            }
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        }
    }
}
