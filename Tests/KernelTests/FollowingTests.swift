import Glibc
import Kernel
import Stage
import Synchronization
import Testing

extension KernelSuite {
    /// A receive that was posted behind another one, when that one has completed: a driver may take its time to start
    /// it, but never at somebody's expense.
    @Suite("receives behind receives") struct Following {
        @Test(
            "the next one is received while the last one's taker computes, by who waits already or comes later",
            arguments: DriverKind.permitted, [true, false])
        func computingTaker(kind: DriverKind, isLate: Bool) throws {
            let collector = try Collector(kind, pollers: 0, waiters: 2)
            let (socket, peer) = try connection(collector)
            let first = Buffer(1)
            let second = Buffer(1)
            try socket.receive(first)
            try socket.receive(second)
            let isTaken = Gate()
            let isOver = Gate()
            // Who takes the first packet does not come back.
            let takers = Atomic<Int>(0)
            func startTaker() -> Kernel.Thread {
                let id = Atomic<Int32>(0)
                let isHere = Gate()
                let thread = startThread("taker") {
                    id.store(Kernel.Thread.currentID, ordering: .relaxed)
                    isHere.open()
                    collector.poll(until: .after(Collector.patience))
                    guard takers.add(1, ordering: .relaxed).newValue == 1 else { return }
                    isTaken.open()
                    while !isOver.isOpen {}
                }
                isHere.pass()
                let number = id.load(ordering: .relaxed)
                if takers.load(ordering: .relaxed) == 0 {
                    #expect(eventually { Kernel.Thread.state(of: number) == .blocked })
                }
                return thread
            }
            var threads = [startTaker()]
            if !isLate { threads.append(startTaker()) }
            peer.send("a")
            isTaken.pass()
            if isLate { threads.append(startTaker()) }
            peer.send("b")
            #expect(collector.next()?.operation === first)
            #expect(collector.next()?.operation === second)
            isOver.open()
            for thread in threads { thread.join() }
        }

        @Test(
            "it does not wait for ever behind other completions, however many there are",
            arguments: DriverKind.permitted)
        func busyDriver(kind: DriverKind) throws {
            let collector = try Collector(kind, pollers: 0)
            let (socket, peer) = try connection(collector)
            let receives = (0..<4).map { _ in Buffer(1) }
            for receive in receives { try socket.receive(receive) }
            peer.send("abcd")
            let deadline = Deadline.after(Collector.patience)
            while collector.count < 4, !deadline.hasPassed {
                // There is always something to be taken out.
                collector.driver.wake()
                collector.poll(until: .now)
            }
            #expect(collector.next(4).map { ($0.operation as? Buffer)?.text } == ["a", "b", "c", "d"])
        }

        @Test("a cancel and a close find it, and what came for it", arguments: DriverKind.permitted)
        func ended(kind: DriverKind) throws {
            let collector = try Collector(kind, pollers: 0)
            let (socket, peer) = try connection(collector)
            let receives = (0..<5).map { _ in Buffer(1) }
            for receive in receives { try socket.receive(receive) }
            func next() -> Packet? {
                let deadline = Deadline.after(Collector.patience)
                while collector.count == 0, !deadline.hasPassed { collector.poll(until: deadline) }
                return collector.next(within: .zero)
            }
            peer.send("a")
            #expect(next()?.operation === receives[0])
            #expect(socket.cancel(receives[1]))
            let cancelled = try #require(next())
            #expect(cancelled.operation === receives[1] && cancelled.code == ECANCELED)
            peer.send("b")
            #expect(!socket.cancel(receives[2]))
            #expect(next()?.operation === receives[2] && receives[2].text == "b")
            peer.send("c")
            socket.close()
            _ = [next(), next()]
            #expect(receives[3].errorCode == 0 && receives[3].text == "c")
            #expect(receives[4].errorCode == ECANCELED)
        }

        @Test("a post behind it starts it", arguments: DriverKind.permitted)
        func postedBehind(kind: DriverKind) throws {
            let collector = try Collector(kind, pollers: 0)
            let (socket, peer) = try connection(collector)
            let receives = (0..<3).map { _ in Buffer(1) }
            for receive in receives.dropLast() { try socket.receive(receive) }
            peer.send("a")
            collector.poll(until: .after(.seconds(5)))
            try socket.receive(receives[2])
            peer.send("bc")
            let deadline = Deadline.after(Collector.patience)
            while collector.count < 3, !deadline.hasPassed { collector.poll(until: .after(.seconds(1))) }
            #expect(collector.next(3).map { ($0.operation as? Buffer)?.text } == ["a", "b", "c"])
        }

        @Test("it goes on when the driver has retired", .enabled(if: Driver.permits(.ioUring)))
        func retired() throws {
            let collector = try Collector(.ioUring, pollers: 0)
            let (socket, peer) = try connection(collector)
            let first = Buffer(1)
            let second = Buffer(1)
            try socket.receive(first)
            try socket.receive(second)
            peer.send("a")
            collector.poll(until: .after(.seconds(5)))
            collector.driver.retire()
            peer.send("b")
            #expect(collector.next(2).map { ($0.operation as? Buffer)?.text } == ["a", "b"])
            socket.close()
        }
    }
}
