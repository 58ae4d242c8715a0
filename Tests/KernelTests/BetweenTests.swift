import CKernel
import Glibc
import Kernel
import Stage
import Synchronization
import Testing

#if DEBUG
    extension KernelSuite {
        /// What happens once in a thousand times, made to happen: see `Between`.
        @Suite("between two moments") struct Moments {
            /// Cancels `operation`, or closes its handle, the first time that it comes by `moment` while `body` runs.
            private func ending(
                _ operation: Overlapped, of handle: Handle, at moment: Between, closes: Bool,
                _ body: () throws -> Void
            ) throws {
                let visits = Counter()
                try Between.visiting(
                    { here, passing in
                        guard here == moment, passing === operation, visits.add() == 1 else { return }
                        if closes { handle.close() } else { #expect(handle.cancel(operation)) }
                    }, body)
                #expect(visits.value > 0)
            }

            @Test(
                "cancelled or closed between two steps of a send: it ends with what was sent",
                arguments: DriverKind.permitted, [false, true])
            func betweenSteps(kind: DriverKind, closes: Bool) throws {
                try withCollector(kind) { collector in
                    let (socket, peer) = try connection(collector)
                    let connected = try Socket(boundTo: .loopback())
                    let listener = try Socket.listener(on: .loopback())
                    try connected.associate(with: collector, key: 1, driver: collector.driver)
                    // The connection stands, and its first data have not been sent.
                    let connect = Buffer("never sent")
                    try ending(connect, of: connected, at: .twoSteps, closes: closes) {
                        try connected.connect(connect, to: listener.localAddress, firstData: connect.content)
                        let packet = try #require(collector.next())
                        #expect(packet.operation === connect && packet.code == ECANCELED, "\(packet)")
                    }
                    // Some bytes have been thrown away, and the end has not come.
                    let disconnect = Overlapped()
                    peer.send(pattern(20_000))
                    try ending(disconnect, of: socket, at: .twoSteps, closes: closes) {
                        try socket.disconnect(disconnect, reuse: true)
                        let packet = try #require(collector.next())
                        #expect(packet.operation === disconnect && packet.code == ECANCELED, "\(packet)")
                    }
                }
            }

            @Test(
                "cancelled or closed before it is in the ring",
                .enabled(if: DriverKind.permitted.contains(.ioUring), "io_uring is not permitted here"),
                arguments: [false, true])
            func beforeTheRing(closes: Bool) throws {
                try withCollector(.ioUring) { collector in
                    let (socket, peer) = try connection(collector)
                    let receive = Buffer(8)
                    try ending(receive, of: socket, at: .postAndRing, closes: closes) {
                        try socket.receive(receive)
                        let packet = try #require(collector.next())
                        #expect(packet.operation === receive && packet.code == ECANCELED)
                    }
                    withExtendedLifetime(peer) {}
                }
            }

            @Test(
                "an accept is cancelled, or its listener closed, between its client and its first data",
                arguments: DriverKind.permitted, [Between.clientAndAdoption, .clientAndFirstData])
            func acceptsClient(kind: DriverKind, moment: Between) throws {
                try withCollector(kind) { collector in
                    for closes in [false, true] {
                        let listener = try Socket.listener(on: .loopback())
                        try listener.associate(with: collector, key: 5, driver: collector.driver)
                        let (accept, socket) = (Buffer(16 + 2 * Address.capacity), Socket())
                        try ending(accept, of: listener, at: moment, closes: closes) {
                            try listener.accept(accept, socket, into: accept.area, receiveLength: 16)
                            let peer = try Peer(connectingTo: listener.localAddress)
                            let packet = try #require(collector.next())
                            #expect(packet.operation === accept && packet.code == ECANCELED, "\(packet)")
                            #expect(listener.acceptsAwaitingData == 0)
                            socket.close()
                            #expect(peer.sawEnd)
                        }
                    }
                }
            }

            @Test("four helpers are busy: a fifth write is cancelled, and not written")
            func helpersBusy() throws {
                try withCollector(.epoll) { collector in
                    let (counter, gate) = (Counter(), Gate())
                    let scratch = try (0..<5).map { _ in try Scratch() }
                    let files = try scratch.map { try File($0.path, for: .writing) }
                    for file in files {
                        try file.associate(with: collector, key: 1, driver: collector.driver)
                    }
                    let writes = files.map { _ in Buffer("written") }
                    try Between.visiting({ here, _ in
                        guard here == .queueAndHelper else { return }
                        counter.add()
                        gate.pass()
                    }) {
                        for (file, write) in zip(files, writes).dropLast() {
                            try file.write(write, from: write.content)
                        }
                        #expect(eventually { counter.value == 4 })
                        try files[4].write(writes[4], from: writes[4].content)
                        #expect(files[4].cancel(writes[4]) && collector.isSilent())
                        gate.open()
                        let packets = collector.next(5)
                        #expect(packets.count == 5)
                        for packet in packets {
                            let isLast = packet.operation === writes[4]
                            #expect(
                                packet.code == (isLast ? ECANCELED : 0) && packet.bytes == (isLast ? 0 : 7))
                        }
                        #expect(try files[4].size == 0)
                    }
                }
            }

            private final class Counter: Sendable {
                private let count = Atomic<Int>(0)
                @discardableResult
                func add() -> Int { count.add(1, ordering: .acquiringAndReleasing).newValue }
                var value: Int { count.load(ordering: .acquiring) }
            }
        }
    }
#endif

extension KernelSuite {
    @Suite("once more") struct OnceMore {
        @Test(
            "an operation that was cancelled and is posted again does not come back cancelled",
            arguments: DriverKind.permitted)
        func againAfterCancel(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                let receive = Buffer(8)
                for round in 0..<20 {
                    try socket.receive(receive)
                    // So that it is in the ring, and waits there.
                    if round % 2 == 0 { usleep(1_000) }
                    socket.cancel(receive)
                    #expect(try #require(collector.next()).code == ECANCELED)
                    try socket.receive(receive)
                    if round % 4 < 2 { usleep(1_000) }
                    peer.send("again")
                    let packet = try #require(collector.next())
                    #expect(packet.code == 0 && receive.text == "again", "round \(round)")
                }
            }
        }

        @Test("a signal does not end a plain call that waits")
        func signal() throws {
            let (socket, peer) = try connection(nil)
            try socket.setBlocking(true)
            // Without SA_RESTART: the system call is interrupted.
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { _ in }
            var former = sigaction()
            sigaction(SIGUSR2, &action, &former)
            defer { sigaction(SIGUSR2, &former, nil) }
            let thread = Atomic<UInt>(0)
            let outcome = Mutex<(count: Int, code: Int32)>((0, 0))
            let bytes = Buffer(8)
            let reader = startThread("reader") {
                // Threads of the tests' pool block most signals, and their threads inherit that.
                var signals = sigset_t()
                sigemptyset(&signals)
                sigaddset(&signals, SIGUSR2)
                pthread_sigmask(SIG_UNBLOCK, &signals, nil)
                thread.store(UInt(pthread_self()), ordering: .releasing)
                do throws(SystemError) {
                    let count = try socket.receiveNow(into: bytes.area)
                    outcome.withLock { $0.count = count ?? -1 }
                } catch {
                    outcome.withLock { $0.code = error.code }
                }
            }
            #expect(eventually { thread.load(ordering: .acquiring) != 0 })
            for _ in 0..<10 {
                usleep(2_000)
                pthread_kill(pthread_t(thread.load(ordering: .acquiring)), SIGUSR2)
            }
            usleep(2_000)
            peer.send("hello")
            reader.join()
            #expect(outcome.withLock { $0 == (5, 0) })
        }
    }
}
