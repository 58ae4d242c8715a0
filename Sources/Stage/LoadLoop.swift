import CKernel
import Glibc
import Kernel

/// The loop behind ``ClientLoad``. Everything is allocated before the clock starts.
final class LoadLoop {
    /// A client's state.
    private struct Client {
        var descriptor: Int32 = -1
        var connected = false
        var sent = 0  // bytes of the present message
        var received = 0
        var roundTrips = 0
        var started = 0  // when the present message was begun
    }

    private let load: ClientLoad
    private let epoll: Int32
    // All of these live as long as the loop does, and only the loop sees them.
    private let clients: UnsafeMutableBufferPointer<Client>
    private let pattern: UnsafeMutableRawBufferPointer
    private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
    private let events = UnsafeMutableBufferPointer<epoll_event>.allocate(capacity: 512)
    private var report = ClientLoad.Report()
    private var connecting = 0
    private var connected = 0
    private var through = 0
    private var end = Int.max  // when no more messages are begun
    /// A message is a piece of the pattern, and where it begins depends on the client and the round trip: a message
    /// that was lost, doubled or meant for another client is noticed.
    private static let shifts = 251
    /// Frames cannot begin anywhere: from one message of the pattern to the next.
    private let step: Int

    init(_ load: ClientLoad) throws(ClientLoad.Failure) {
        self.load = load
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        clients = .allocate(capacity: load.connections)
        clients.initialize(repeating: Client())
        step = load.framesEach > 0 ? load.messageSize : 1
        pattern = .allocate(byteCount: load.messageSize + LoadLoop.shifts * step, alignment: 16)
        var word: UInt32 = 1
        for index in pattern.indices {
            word = word &* 1_664_525 &+ 1_013_904_223
            pattern[index] = UInt8(word >> 24)
        }
        if load.framesEach > 0 {
            let size = load.messageSize / load.framesEach
            for start in stride(from: 0, to: pattern.count, by: size) {
                pattern.storeBytes(of: UInt32(size - 4).bigEndian, toByteOffset: start, as: UInt32.self)
            }
        }
        if epoll < 0 { throw failure("create an epoll descriptor") }
    }

    deinit {
        for client in clients where client.descriptor >= 0 {
            var value = linger(l_onoff: 1, l_linger: 0)
            setsockopt(client.descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
            close(client.descriptor)
        }
        if epoll >= 0 { close(epoll) }
        clients.deallocate()
        pattern.deallocate()
        scratch.deallocate()
        events.deallocate()
    }

    func run() throws(ClientLoad.Failure) -> ClientLoad.Report {
        let processorTime = Resources.threadTime
        try connectAll()
        let start = now()
        end = start + nanoseconds(load.duration)
        for client in clients.indices { try begin(client) }
        while through < clients.count {
            let left = end - now()
            if left <= 0 { break }
            for event in wait(left) { try handle(Int(event.data.u64), event.events) }
        }
        report.elapsed = .nanoseconds(now() - start)
        report.silent = clients.count { $0.roundTrips == 0 }
        report.processorTime = Resources.threadTime - processorTime
        if let each = load.roundTripsEach, through < clients.count {
            throw .unfinished(roundTrips: report.roundTrips, of: each * clients.count)
        }
        return report
    }

    // MARK: Connecting

    private func connectAll() throws(ClientLoad.Failure) {
        let deadline = now() + nanoseconds(load.connectLimit)
        var next = 0
        while connected < clients.count {
            while next < clients.count && connecting < ClientLoad.connectsAtOnce {
                try connect(next)
                next += 1
            }
            let left = deadline - now()
            if left <= 0 { throw .connectingTook(connected: connected, of: clients.count) }
            if connecting == 0 { continue }
            for event in wait(left) {
                let client = Int(event.data.u64)
                if clients[client].connected {
                    // Nothing was sent yet, so this can only be the end of the connection.
                    if event.events & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLRDHUP.rawValue) != 0 {
                        try receive(client)
                    }
                    continue
                }
                var code: Int32 = 0
                var length = socklen_t(MemoryLayout<Int32>.size)
                getsockopt(clients[client].descriptor, SOL_SOCKET, SO_ERROR, &code, &length)
                if code != 0 { throw failure("connect to \(load.server)", code) }
                clients[client].connected = true
                connecting -= 1
                connected += 1
            }
        }
    }

    private func connect(_ client: Int) throws(ClientLoad.Failure) {
        let family = load.server.isIPv6 ? AF_INET6 : AF_INET
        let type = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(family, type, 0)
        if descriptor < 0 { throw failure("create the socket of client \(client)") }
        clients[client].descriptor = descriptor
        var yes: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, 4)
        if clients.count > load.connectionsPerAddress {
            // The port is chosen at connect: it has to be free for this server only.
            setsockopt(descriptor, Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT, &yes, 4)
            let local = Address("127.0.0.\(2 + client / load.connectionsPerAddress)", port: 0)!
            if withSystem(local, { bind(descriptor, $0, $1) }) != 0 { throw failure("bind \(local)") }
        }
        let result = withSystem(load.server) { Glibc.connect(descriptor, $0, $1) }
        if result != 0 && errno != EINPROGRESS { throw failure("connect to \(load.server)") }
        // One registration for the connection's life; it tells of changes only.
        let interest = EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue
        var event = epoll_event(events: interest, data: epoll_data_t(u64: UInt64(client)))
        if epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0 {
            throw failure("register client \(client)")
        }
        if result == 0 {
            clients[client].connected = true
            connected += 1
        } else {
            connecting += 1
        }
    }

    // MARK: Messages

    private func message(_ client: Int) -> UnsafeRawPointer {
        let shift = (client &* 31 &+ clients[client].roundTrips &* 7) % LoadLoop.shifts
        return UnsafeRawPointer(pattern.baseAddress! + shift * step)
    }

    private func begin(_ client: Int) throws(ClientLoad.Failure) {
        clients[client].sent = 0
        clients[client].received = 0
        clients[client].started = now()
        try send(client)
    }

    private func send(_ client: Int) throws(ClientLoad.Failure) {
        while clients[client].sent < load.messageSize {
            let sent = clients[client].sent
            let count = Glibc.send(
                clients[client].descriptor, message(client) + sent, load.messageSize - sent,
                Int32(MSG_NOSIGNAL))
            if count >= 0 {
                clients[client].sent += count
            } else if errno == EAGAIN {
                return
            } else if errno != EINTR {
                try gone(client, "send")
            }
        }
    }

    private func handle(_ client: Int, _ what: UInt32) throws(ClientLoad.Failure) {
        if what & EPOLLOUT.rawValue != 0 { try send(client) }
        if what & ~EPOLLOUT.rawValue != 0 { try receive(client) }
    }

    private func receive(_ client: Int) throws(ClientLoad.Failure) {
        while true {
            let count = recv(clients[client].descriptor, scratch.baseAddress, scratch.count, 0)
            if count == 0 { throw closed(client) }
            if count < 0 {
                if errno == EAGAIN { return }
                if errno != EINTR { try gone(client, "receive") }
                continue
            }
            let received = clients[client].received
            let isRight =
                received + count <= clients[client].sent
                && memcmp(scratch.baseAddress!, message(client) + received, count) == 0
            if !isRight { throw .wrongBytes(client: client, roundTrip: clients[client].roundTrips + 1) }
            clients[client].received += count
            if clients[client].received == load.messageSize { try finish(client) }
            if count < scratch.count { return }
        }
    }

    private func finish(_ client: Int) throws(ClientLoad.Failure) {
        let time = now()
        if time > end { return }
        report.latency.add(nanoseconds: time - clients[client].started)
        report.roundTrips += 1
        clients[client].roundTrips += 1
        if clients[client].roundTrips == load.roundTripsEach {
            // Its counts stay full: nothing more is sent, and every further byte is wrong.
            through += 1
        } else {
            try begin(client)
        }
    }

    // MARK: The system

    private func wait(_ nanoseconds: Int) -> UnsafeMutableBufferPointer<epoll_event>.SubSequence {
        var time = timespec(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
        let count = ck_epoll_wait(epoll, events.baseAddress!, Int32(events.count), &time)
        return events.prefix(max(0, Int(count)))
    }

    private func closed(_ client: Int) -> ClientLoad.Failure {
        .closedByServer(client: client, afterRoundTrips: clients[client].roundTrips)
    }

    private func gone(_ client: Int, _ attempted: String) throws(ClientLoad.Failure) {
        if errno == ECONNRESET || errno == EPIPE { throw closed(client) }
        throw failure("\(attempted) for client \(client)")
    }

    private func failure(_ attempted: String, _ code: Int32 = errno) -> ClientLoad.Failure {
        .system(SystemError(code, attempted: attempted))
    }

    private func now() -> Int { Int(monotonicNanoseconds()) }

    private func nanoseconds(_ duration: Duration) -> Int { max(0, Int(duration / .nanoseconds(1))) }
}

/// Lends the system's form of an address.
private func withSystem<Result>(_ address: Address, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result)
    -> Result
{
    func lend<Form>(_ form: Form) -> Result {
        withUnsafePointer(to: form) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<Form>.size))
            }
        }
    }
    if address.isIPv6 {
        var form = sockaddr_in6()
        form.sin6_family = sa_family_t(AF_INET6)
        form.sin6_port = address.port.bigEndian
        inet_pton(AF_INET6, address.host, &form.sin6_addr)
        return lend(form)
    }
    var form = sockaddr_in()
    form.sin_family = sa_family_t(AF_INET)
    form.sin_port = address.port.bigEndian
    inet_pton(AF_INET, address.host, &form.sin_addr)
    return lend(form)
}
