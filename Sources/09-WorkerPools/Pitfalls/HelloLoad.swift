import CKernel
import Glibc
import Kernel
import Stage

/// Clients that say hello again and again, at fixed moments, and how long each waited for its answer.
///
/// A wait begins when the hello was due, also when the client could not say it, since it still waited for the last answer:
/// so a server that is stuck for long is not measured by one wait alone. One thread drives all of them, with plain calls.
public final class HelloLoad {
    /// What they have seen.
    public struct Report: Sendable {
        /// How long each waited.
        public internal(set) var waits = LatencyHistogram()
        /// Hellos that had no answer at the end.
        public internal(set) var unanswered = 0
    }

    private struct Client {
        let socket: Socket
        var due: UInt64
        var since: UInt64?
        var bytes = 0
    }

    private var clients: [Client] = []
    private let interval: UInt64
    private var report = Report()
    private let epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    private var events: [epoll_event]
    private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 8)

    /// Connects them. The interval is shorter than a second.
    public init(to address: Address, clients count: Int, every interval: Duration) throws(SystemError) {
        self.interval = UInt64(interval / .nanoseconds(1))
        events = Array(repeating: epoll_event(), count: count)
        guard epoll >= 0 else { throw SystemError(errno, attempted: "make a poller") }
        for index in 0..<count {
            let socket = try Socket.connected(to: address)
            try socket.setNoDelay()
            clients.append(Client(socket: socket, due: 0, since: nil))
            var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data(u64: UInt64(index)))
            epoll_ctl(epoll, EPOLL_CTL_ADD, socket.descriptor, &event)
        }
    }

    deinit {
        for client in clients { try? client.socket.abort() }
        close(epoll)
        scratch.deallocate()
    }

    /// Runs for so long on the calling thread, and then waits for the last answers, for a second at most.
    public func run(for duration: Duration) throws(SystemError) -> Report {
        let start = monotonicNanoseconds()
        // Not all of them at the same moment.
        for index in clients.indices {
            clients[index].due = start + interval * UInt64(index) / UInt64(clients.count)
        }
        let (end, last) = (Deadline.after(duration), Deadline.after(duration + .seconds(1)))
        while !last.hasPassed {
            let isOver = end.hasPassed
            if isOver, clients.allSatisfy({ $0.since == nil }) { break }
            let now = monotonicNanoseconds()
            for index in clients.indices
            where !isOver && clients[index].since == nil && clients[index].due <= now {
                try hello(index)
            }
            try listen(
                until: isOver ? last.nanoseconds : clients.lazy.filter { $0.since == nil }.map(\.due).min())
        }
        report.unanswered = clients.count { $0.since != nil }
        return report
    }

    private func hello(_ index: Int) throws(SystemError) {
        try clients[index].socket.say("hello\n")
        clients[index].since = clients[index].due
        clients[index].due += interval
    }

    /// Takes the answers that are there, or that come before that moment.
    private func listen(until moment: UInt64?) throws(SystemError) {
        let now = monotonicNanoseconds()
        let left = Swift.max(now, Swift.min(moment ?? .max, now + interval)) - now
        var time = timespec(tv_sec: 0, tv_nsec: Int(left))
        let count = epoll_pwait2(epoll, &events, Int32(events.count), &time, nil)
        for event in events.prefix(Int(max(0, count))) {
            let index = Int(event.data.u64)
            guard let count = try clients[index].socket.receiveNow(into: scratch) else { continue }
            if count == 0 { throw SystemError(ECONNRESET, attempted: "hear hello") }
            clients[index].bytes += count
            // One at a time is said, so one at a time is heard.
            guard clients[index].bytes >= 6, let since = clients[index].since else { continue }
            clients[index].bytes = 0
            clients[index].since = nil
            report.waits.add(nanoseconds: Int(monotonicNanoseconds() - since))
        }
    }
}

/// Computes for so long: what a worker does that has a processor and does not let go of it.
@Sendable public func compute(for time: Duration) {
    let end = Deadline.after(time)
    while !end.hasPassed {}
}
