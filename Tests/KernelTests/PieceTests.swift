import CKernel
import Glibc
import Kernel
import Stage
import Testing

@Suite("kernel: small pieces") struct KernelPieces {
    @Test("a circular queue gives back what was put in, in order, and releases the rest")
    func circularQueue() {
        final class Item { let number: Int; init(_ number: Int) { self.number = number } }
        weak var observed: Item?
        do {
            var queue = CircularQueue<Item>(capacity: 3)
            #expect(queue.isEmpty && queue.oldest == nil && queue.popFirst() == nil)
            var next = 0
            var expected = 0
            for round in 0..<200 {
                for _ in 0..<round % 7 { queue.append(Item(next)); next += 1 }
                for _ in 0..<round % 5 {
                    guard let item = queue.popFirst() else { break }
                    #expect(item.number == expected)
                    expected += 1
                }
                #expect(queue.count == next - expected && queue.isEmpty == (next == expected))
            }
            let last = Item(next)
            observed = last
            queue.append(last)
            #expect(queue.oldest?.number == expected)
            while let item = queue.popFirst(), item !== last {
                #expect(item.number == expected)
                expected += 1
            }
            queue.append(last)
        }
        #expect(observed == nil)
    }

    @Test("an empty queue has no first element")
    func emptyQueue() async {
        await #expect(processExitsWith: .failure) {
            var queue = CircularQueue<Int>()
            queue.append(1)
            _ = queue.removeFirst()
            _ = queue.removeFirst()
        }
    }

    @Test("a lock admits one at a time; a monitor's wait ends at its deadline, or before it by a signal")
    func monitor() {
        final class Shared: @unchecked Sendable {
            let lock = Lock()
            let monitor = Monitor()
            var count = 0
            var isSet = false
        }
        let shared = Shared()
        inThreads(4) { _ in for _ in 0..<5_000 { shared.lock.locked { shared.count += 1 } } }
        #expect(shared.count == 20_000)
        let deadline = Deadline.after(.milliseconds(5))
        shared.monitor.locked { while shared.monitor.wait(until: deadline) {} }
        #expect(deadline.hasPassed)
        let setter = startThread("setter") {
            shared.monitor.locked {
                shared.isSet = true
                shared.monitor.signal()
            }
        }
        let limit = Deadline.after(.seconds(5))
        shared.monitor.locked { while !shared.isSet, shared.monitor.wait(until: limit) {} }
        #expect(shared.isSet && !limit.hasPassed)
        setter.join()
        setter.join()
    }

    @Test("deadlines")
    func deadlines() {
        #expect(Deadline.never.isNever && !Deadline.never.hasPassed && Deadline.never.remaining == .max)
        #expect(Deadline.now.hasPassed && Deadline.now.remaining == 0)
        #expect(Deadline.after(.seconds(-1)).hasPassed && Deadline.after(.zero).hasPassed)
        #expect(Deadline.after(nil as Duration?).isNever && Deadline.after(.seconds(1 << 40)).isNever)
        let soon = Deadline.after(.milliseconds(1_500))
        #expect(!soon.hasPassed && soon.remaining > 1_000_000_000 && soon.remaining <= 1_500_000_000)
        #expect(Deadline.now < soon && soon < .never && min(soon, .never) == soon)
    }

    @Test("addresses")
    func addresses() throws {
        let four = try #require(Address("127.0.0.1", port: 80))
        let six = try #require(Address("::1", port: 8080))
        #expect("\(four)" == "127.0.0.1:80" && "\(six)" == "[::1]:8080" && six.isIPv6 && !four.isIPv6)
        #expect(four.host == "127.0.0.1" && four == .loopback(port: 80) && six == .loopback6(port: 8080))
        #expect(four != six && four != .loopback(port: 81) && Set([four, six, four]).count == 2)
        for nonsense in ["", "localhost", "127.0.0.256", "1.2.3", "::1::", "127.0.0.1 ", "0x7f.1"] {
            #expect(Address(nonsense, port: 1) == nil, "\(nonsense)")
        }
        for address in Address.loopbacks {
            let listener = try Socket.listener(on: address)
            let bound = try listener.localAddress
            #expect(bound.port != 0 && bound.host == address.host)
            expectError(EADDRINUSE) { _ = try Socket.listener(on: bound) }
            expectError(ENOTCONN) { _ = try listener.remoteAddress }
        }
        // Held, or somebody else might listen there by then.
        let deaf = try Socket(boundTo: .loopback())
        defer { deaf.close() }
        let free = try deaf.localAddress
        expectError(ECONNREFUSED) { _ = try Socket.connected(to: free) }
    }

    /// Whether a socket can be told which ports it may choose from: `IP_LOCAL_PORT_RANGE`, Linux 6.3.
    private static let choosesPorts =
        (try? Socket.unbound().set(Int32(IPPROTO_IP), localPortRange, 40_000 << 16 | 40_000)) != nil
    private static let localPortRange: Int32 = 51

    @Test(
        "no port that is left is no port that is taken",
        .enabled(if: choosesPorts, "this kernel has no IP_LOCAL_PORT_RANGE"))
    func noPortLeft() throws {
        let taken = try Socket(boundTo: .loopback())
        let port = Int32(try taken.localAddress.port)
        let socket = try Socket.unbound()
        // From here on this socket has one port to choose from.
        try socket.set(Int32(IPPROTO_IP), Self.localPortRange, port << 16 | port)
        do {
            try socket.bind(to: .loopback())
            Issue.record("the port was free")
        } catch {
            #expect(error.code == EADDRNOTAVAIL && "\(error)".contains("no local port is left"), "\(error)")
            #expect(!"\(error)".contains("or 0"))
        }
        expectError(EADDRINUSE) { try Socket.unbound().bind(to: .loopback(port: UInt16(port))) }
    }

    @Test("an error says what was attempted, in one line")
    func errors() {
        let error = SystemError(EADDRINUSE, attempted: "listen on 127.0.0.1:80")
        #expect(error.description.hasPrefix("listen on 127.0.0.1:80: Address already in use ("))
        #expect(!error.description.contains("\n") && error == SystemError(EADDRINUSE, attempted: "else"))
        #expect(error != SystemError(EACCES, attempted: "listen on 127.0.0.1:80"))
        #expect(SystemError(SystemError.endOfFile, attempted: "read").description == "read: end of file")
        #expect(SystemError.text(ECANCELED) == "Operation canceled" && SystemError.cancelled == ECANCELED)
    }

    @Test("plain calls: nothing to do now, and a blocking socket")
    func plainCalls() throws {
        let listener = try Socket.listener(on: .loopback())
        #expect(try listener.acceptNow() == nil)
        let (socket, peer) = try connection(nil)
        let buffer = Buffer(8)
        #expect(try socket.receiveNow(into: buffer.area) == nil)
        let hello = Buffer("hello")
        #expect(try socket.sendNow(hello.content) == 5 && peer.text(5) == "hello")
        try socket.setBlocking(true)
        let sender = startThread("sender") { peer.send("later") }
        #expect(try socket.receiveNow(into: buffer.area) == 5)
        sender.join()
        peer.socket.close()
        #expect(try socket.receiveNow(into: buffer.area) == 0)
        expectError(EINVAL) { _ = try socket.acceptNow() }
        socket.close()
        expectError(EBADF) { _ = try socket.receiveNow(into: buffer.area) }
    }

    @Test("a poller tells what is ready, once for each change")
    func poller() throws {
        let poller = try Poller()
        let (socket, peer) = try connection(nil)
        try poller.add(socket.descriptor, [.readable, .onChange], token: 42)
        let events = UnsafeMutableBufferPointer<epoll_event>.allocate(capacity: 4)
        defer { events.deallocate() }
        #expect(poller.wait(events, until: .now) == 0)
        peer.send("x")
        #expect(poller.wait(events, until: .after(.seconds(5))) == 1 && events[0].data.u64 == 42)
        #expect(Poller.Readiness(rawValue: events[0].events).contains(.readable))
        #expect(poller.wait(events, until: .after(.milliseconds(1))) == 0)
        poller.remove(socket.descriptor)
        peer.send("x")
        #expect(poller.wait(events, until: .after(.milliseconds(1))) == 0)
    }

    @Test("a thread's state can be seen")
    func threadState() {
        let (parked, busy, done) = (Gate(), Gate(), Gate())
        final class Box: @unchecked Sendable { var id: Int32 = 0 }
        let (sleeper, worker) = (Box(), Box())
        let threads = [
            startThread("sleeper") {
                sleeper.id = Kernel.Thread.currentID
                parked.open()
                done.pass()
            },
            startThread("worker") {
                worker.id = Kernel.Thread.currentID
                busy.open()
                while !done.isOpen {}
            },
        ]
        parked.pass()
        busy.pass()
        #expect(eventually { Kernel.Thread.state(of: sleeper.id) == .blocked })
        #expect(eventually { Kernel.Thread.state(of: worker.id) == .runnable })
        done.open()
        for thread in threads { thread.join() }
        #expect(eventually { Kernel.Thread.state(of: sleeper.id) == nil })
    }
}
