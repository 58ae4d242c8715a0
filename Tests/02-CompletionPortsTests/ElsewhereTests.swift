import AsyncEvents
import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// Ports that are closed, that nobody asks, and that a handle leaves for another.
@Suite(.serialized) struct Chapter02CompletionPortsElsewhere {
    private func taken(_ port: CompletionPort) throws -> Packet { try port.next() }

    @Test(
        "what is pending when a port is closed is carried out, and its packet dropped and counted",
        arguments: DriverKind.permitted)
    func closedPort(driver: DriverKind) throws {
        let port = try CompletionPort.on(driver)
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        let (pending, later) = (Request(1), Request(2))
        let (first, second) = (Event(.manual), Event(.manual))
        (pending.event, later.event) = (first, second)
        try pair.server.receive(pending, into: pending.memory)
        port.close()
        try pair.client.say("one")
        #expect(first.wait(until: .after(Gate.patience)) == .signalled(index: 0))
        #expect(eventually { port.droppedPackets == 1 } && pending.text(3) == "one")
        // The handle is open, and alone.
        try pair.server.receive(later, into: later.memory)
        try pair.client.say("two")
        #expect(second.wait(until: .after(Gate.patience)) == .signalled(index: 0))
        #expect(eventually { port.droppedPackets == 2 } && later.text(3) == "two")
        pair.server.close()
    }

    @Test("a file of a port that nobody asks can be read with events", arguments: DriverKind.permitted)
    func unaskedFile(driver: DriverKind) async throws {
        try await onAThread {
            let port = try CompletionPort.on(driver)
            let file = try File("/proc/self/exe")
            try port.associate(file, key: 1)
            let request = Request(room: 4_096)
            let event = Event(.manual)
            request.event = event
            for round in 0..<10 {
                request.offset = Int64(round) * 4_096
                try file.read(request, into: request.memory)
                #expect(event.wait(until: .after(Gate.patience)) == .signalled(index: 0))
                #expect(try port.next().bytes == 4_096)
            }
            file.close()
            port.close()
        }
    }

    @Test("a handle goes to another port when nothing is under way", arguments: DriverKind.permitted)
    func reassociation(driver: DriverKind) throws {
        let (first, second) = (try CompletionPort.on(driver), try CompletionPort.on(driver))
        let pair = try Pair()
        try first.associate(pair.server, key: 1)
        let request = Request()
        func move() throws(SystemError) { try second.reassociate(pair.server, key: 2) }
        func isBusy() -> Bool {
            do throws(SystemError) { try move() } catch { return error.code == EBUSY }
            return false
        }
        try pair.server.receive(request, into: request.memory)
        // Pending.
        #expect(isBusy())
        try pair.client.say("one")
        // Queued: the post looks into the driver, and the packet of the receive comes before it.
        #expect(
            eventually {
                try? first.post(key: 7)
                return first.queuedPackets > 1 && !request.isPending
            })
        #expect(isBusy() && pair.server.completionKey == 1)
        while try first.next().key != 1 {}
        // Posted with its key: that is one, too.
        try first.post(key: 1)
        #expect(isBusy())
        while try first.next().key != 1 {}
        // Bytes that have come meanwhile are not lost.
        try pair.client.say("two")
        try move()
        #expect(pair.server.completionKey == 2)
        try pair.server.receive(request, into: request.memory)
        let packet = try second.next()
        #expect(packet.key == 2 && request.text(packet.bytes) == "two" && first.queuedPackets == 0)
        // A port that is closed takes nothing; a handle without a port has nothing to change.
        second.close()
        #expect(throws: SystemError.closed("")) { try move() }
        let alone = try Pair()
        #expect(throws: SystemError.invalid("")) { try first.reassociate(alone.server, key: 3) }
        pair.server.close()
        first.close()
    }

    @Test(
        "a packet that is promised, or handed to a parked worker, is under way too, until the worker has it",
        arguments: DriverKind.permitted, [1, 2])
    func reassociationBesideWorkers(driver: DriverKind, waiting: Int) throws {
        let (first, second) = (try makePort(1, driver), try makePort(1, driver))
        let pair = try Pair()
        try first.associate(pair.server, key: 1)
        // The first waits in the driver, and is promised a packet; a second one is parked, and is handed it. Either way the
        // packet is not in the queue any more.
        let workers = (1...waiting).map { PortWorker("\($0)") }
        for (index, worker) in workers.enumerated() { #expect(worker.waits(at: first, as: index + 1)) }
        var isSeen = false
        let limit = Deadline.after(Gate.patience)
        while !isSeen, !limit.hasPassed {
            try first.post(key: 1)
            // Mostly before the worker has come back with it.
            do throws(SystemError) {
                try second.reassociate(pair.server, key: 2)
                try first.reassociate(pair.server, key: 1)
            } catch {
                #expect(error.code == EBUSY)
                isSeen = true
            }
            #expect(workers.last!.key() == 1)
            #expect(workers.last!.waits(at: first, as: waiting))
        }
        #expect(isSeen && pair.server.completionKey == 1)
        first.close()
        for worker in workers {
            #expect(worker.take()?.isClosed == true)
            worker.worker.end()
        }
        try second.reassociate(pair.server, key: 2)
        pair.server.close()
        second.close()
    }

    @Test(
        "a thousand moves between two ports with bytes on their way: every byte, in order, to the right port",
        arguments: DriverKind.permitted)
    func manyMoves(driver: DriverKind) async throws {
        try await onAThread {
            let ports = [try CompletionPort.on(driver), try CompletionPort.on(driver)]
            let pair = try Pair()
            try ports[0].associate(pair.server, key: 0)
            let total = 60_000
            let talker = startThread("talker") {
                for start in stride(from: 0, to: total, by: 60) {
                    try? pair.client.say((start..<start + 60).map { UInt8(truncatingIfNeeded: $0) })
                }
            }
            let request = Request(room: 64)
            var heard = 0
            var round = 0
            while heard < total {
                let port = ports[round % 2]
                try pair.server.receive(request, into: request.memory)
                let packet = try port.next()
                #expect(packet.key == UInt(round) && packet.bytes > 0)
                if packet.bytes == 0 { break }
                for index in 0..<packet.bytes {
                    if request.memory[index] != UInt8(truncatingIfNeeded: heard + index) {
                        Issue.record("byte \(heard + index) is wrong")
                        return
                    }
                }
                heard += packet.bytes
                round += 1
                try ports[round % 2].reassociate(pair.server, key: UInt(round))
            }
            talker.join()
            #expect(round >= total / 64)
            pair.server.close()
            for port in ports { port.close() }
        }
    }

    @Test(
        "long handlers that keep the queue full do not keep the driver from being asked",
        arguments: DriverKind.permitted)
    func turnsAreNotTime(driver: DriverKind) throws {
        let port = try CompletionPort.on(driver)
        let (busy, quiet) = (try Pair(), try Pair())
        try port.associate(busy.server, key: 1)
        try port.associate(quiet.server, key: 2)
        let question = Request(room: 1)
        try quiet.server.receive(question, into: question.memory)
        // Two of them go round, so that there is always a packet. What is transmitted from memory is sent by the poster, on
        // either driver.
        let packets = [Request(1, room: 1), Request(2, room: 1)]
        for packet in packets { try busy.server.transmit(packet, nil, head: .init(packet.memory)) }
        _ = try port.next()
        try quiet.client.say("?")
        var turns = 0
        while turns < 60 {
            usleep(10_000)
            try busy.server.transmit(packets[turns % 2], nil, head: .init(packets[turns % 2].memory))
            if try port.next().key == 2 { break }
            turns += 1
        }
        #expect(turns <= 6, "\(turns) packets of 10 ms each before the question")
        busy.server.close()
        quiet.server.close()
        port.close()
    }
}
