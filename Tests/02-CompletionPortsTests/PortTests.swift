import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// What the reference pages promise about the port, its packets, and starting operations. The number of each
/// statement is in the name of its test.
@Suite(.serialized) struct Chapter02CompletionPortsPort {
    // MARK: The port

    @Test("I2.4: a socket may be associated before it is connected", arguments: DriverKind.permitted)
    func unconnected(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let listener = try Socket.listener(on: .loopback())
            let socket = try Socket(boundTo: .loopback())
            try port.associate(socket, key: 6)
            let connect = Request()
            try socket.connect(connect, to: try listener.localAddress)
            let packet = try port.next()
            complaints.expect(packet.operation === connect, "the connect's own packet")
            complaints.equal(packet.key, 6)
            complaints.equal(packet.errorCode, 0)
        }
    }

    @Test(
        "I2.1: an operation that was posted before the association reports to the port",
        arguments: DriverKind.permitted)
    func associationLater(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            let receive = Request()
            try pair.server.receive(receive, into: receive.memory)
            let listener = try Socket.listener(on: .loopback())
            let accept = Request(room: 2 * Address.capacity)
            try listener.accept(accept, Socket(), into: accept.memory, receiveLength: 0)
            try port.associate(pair.server, key: 70)
            try port.associate(listener, key: 71)
            try pair.client.say("late")
            let first = try port.next()
            let client = try Socket.connected(to: try listener.localAddress)
            let second = try port.next()
            complaints.equal([first.key, second.key], [70, 71], "keys")
            complaints.equal(receive.text(first.bytes), "late")
            complaints.expect(second.operation === accept && second.errorCode == 0, "the accept's packet")
            complaints.expect(port.hasNothingMore, "one packet each")
            client.close()
        }
    }

    @Test(
        "I2.1: an association may come while the first driver has the operation in hand",
        arguments: DriverKind.permitted)
    func associationRacing(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            for round in 0..<300 {
                let pair = try Pair()
                let receive = Request()
                let gate = Gate()
                let talker = startThread("talker") {
                    gate.pass()
                    try? pair.client.say("racing")
                }
                gate.open()
                try pair.server.receive(receive, into: receive.memory)
                // Complete already, and gone without a packet, or pending and going to the port.
                try port.associate(pair.server, key: UInt(round))
                talker.join()
                let outcome = port.dequeue(timeout: receive.isPending ? Gate.patience : .milliseconds(1))
                if case .completed(let packet) = outcome {
                    complaints.equal(packet.key, UInt(round))
                } else {
                    complaints.expect(!receive.isPending, "round \(round): neither packet nor result")
                }
                complaints.equal(receive.text(receive.bytes), "racing", "round \(round)")
                if complaints.all.count > 3 { return }
            }
        }
    }

    @Test(
        "I2.1: what was posted with a routine before the association goes to its routine",
        arguments: DriverKind.permitted)
    func routineBeforeAssociation(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            let routine = Routine()
            let requests = [Request(1), Request(2)]
            requests[0].routineTarget = routine
            for request in requests { try pair.server.receive(request, into: request.memory) }
            try port.associate(pair.server, key: 1)
            try pair.client.say("for the routine")
            complaints.expect(port.hasNothingMore, "no packet")
            complaints.expect(routine.taken.value == 1 && !requests[0].isPending, "the routine's")
            try pair.client.say("for the port")
            complaints.expect(try port.next().operation === requests[1], "the other one's packet")
            complaints.refused(EINVAL, "a routine from now on") { () throws(SystemError) in
                try pair.server.receive(requests[0], into: requests[0].memory)
            }
        }
    }

    /// Where the completions of routines go.
    private final class Routine: CompletionTarget, @unchecked Sendable {
        let taken = Counter()

        override func take(_ completed: inout CompletionList) {
            while let operation = completed.popFirst() {
                taken.add()
                operation.takeRetainedValue().wasDequeued()
            }
        }
    }

    @Test("I2.2: a key is any 64 bits, and the port does not look into it", arguments: DriverKind.permitted)
    func keys(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            for key in [0, 1, UInt.max, 1 << 63, 0xDEAD_BEEF_0BAD_F00D] {
                let pair = try Pair()
                try port.associate(pair.server, key: key)
                complaints.equal(pair.server.completionKey, key)
                let request = Request()
                try pair.server.receive(request, into: request.memory)
                try pair.client.say("x")
                complaints.equal(try port.next().key, key)
                complaints.equal(request.completionKey, key)
            }
        }
    }

    @Test(
        "I2.9: closing a port leaves its sockets alone, and an associated handle keeps the port alive",
        arguments: DriverKind.permitted)
    func portGoesFirst(driver: DriverKind) throws {
        try verify { complaints in
            weak var last: CompletionPort?
            var pair: Pair? = try Pair()
            let pending = Request()
            do {
                let port = try CompletionPort.on(driver)
                last = port
                try port.associate(pair!.server, key: 9)
                port.close()
            }
            complaints.expect(last != nil, "the port while a handle belongs to it")
            try pair!.client.say("still here")
            complaints.equal(try pair!.server.hear(10), "still here")
            try pair!.server.say("so am I")
            complaints.equal(try pair!.client.hear(7), "so am I")
            complaints.expect(pair!.server.descriptor >= 0, "the socket")
            // An operation may still be posted and cancelled; there is nobody to tell.
            try pair!.server.receive(pending, into: pending.memory)
            pair!.server.close()
            complaints.expect(eventually { !pending.isPending }, "the end of the pending receive")
            complaints.equal(pending.errorCode, SystemError.cancelled)
            complaints.expect(eventually { last?.droppedPackets == 1 }, "the dropped packet's count")
            pair = nil
            complaints.expect(eventually { last == nil }, "the end of the port, with its last handle")
        }
    }

    // MARK: Packets

    @Test(
        "I2.3: a success has its operation, its bytes and its key, and no error",
        arguments: DriverKind.permitted)
    func success(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 11)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            try pair.client.say("12345")
            guard case .completed(let packet) = port.dequeue(timeout: Gate.patience) else {
                return complaints.add("no success")
            }
            complaints.expect(packet.operation === request && !packet.isPosted, "the operation")
            complaints.equal(packet.bytes, 5)
            complaints.equal(packet.key, 11)
            complaints.expect(packet.error == nil && request.error == nil, "no error")
            complaints.equal(request.bytes, 5, "the operation's own count")
        }
    }

    @Test(
        "I2.3: a failure has its operation, its key and its error", arguments: DriverKind.permitted)
    func failure(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 12)
            let request = Request()
            try pair.server.receive(request, into: request.memory)
            try pair.client.abort()
            guard case .failed(let packet, let error) = port.dequeue(timeout: Gate.patience) else {
                return complaints.add("no failure")
            }
            complaints.expect(packet.operation === request && packet.key == 12, "operation and key")
            complaints.equal(error.code, ECONNRESET)
            complaints.equal(packet.errorCode, ECONNRESET)
            complaints.equal(request.errorCode, ECONNRESET)
        }
    }

    @Test(
        "I2.3: a posted packet without an operation is a success, and no timeout",
        arguments: DriverKind.permitted)
    func nothingPosted(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            try port.post()
            guard case .completed(let packet) = port.dequeue(timeout: .zero) else {
                return complaints.add("not taken for a packet")
            }
            complaints.expect(packet.operation == nil && packet.isPosted, "an empty packet")
            complaints.equal(packet.bytes, 0)
            complaints.equal(packet.key, 0)
            guard case .timedOut = port.dequeue(timeout: .zero) else {
                return complaints.add("no timeout on an empty queue")
            }
        }
    }

    @Test("I2.1: a packet outlives its handle, with its old key", arguments: DriverKind.permitted)
    func packetOutlivesHandle(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            var pair: Pair? = try Pair()
            var other: Pair? = try Pair()
            try port.associate(pair!.server, key: 77)
            try port.associate(other!.server, key: 78)
            let requests = [Request(0), Request(1)]
            try pair!.server.receive(requests[0], into: requests[0].memory)
            try other!.server.receive(requests[1], into: requests[1].memory)
            try pair!.client.say("last words")
            try other!.client.say("last words")
            // The first packet brings the other one into the queue, if it is not there yet.
            let first = try port.next()
            complaints.expect(eventually { port.queuedPackets == 1 }, "the second packet in the queue")
            pair!.server.close()
            other!.server.close()
            pair = nil
            other = nil
            let second = try port.next()
            complaints.equal(Set([first.key, second.key]), [77, 78], "keys")
            complaints.equal(second.errorCode, 0)
            complaints.equal((second.operation as? Request)?.text(second.bytes), "last words")
            complaints.expect(port.hasNothingMore, "no packet for the close")
        }
    }

    @Test(
        "I2.2: what had come before a close or a cancel is delivered, although no worker has asked the port since",
        arguments: DriverKind.permitted)
    func cameBefore(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            for isClosed in [true, false] {
                let pair = try Pair()
                try port.associate(pair.server, key: 77)
                let request = Request()
                try pair.server.receive(request, into: request.memory)
                complaints.expect(port.hasNothingMore, "pending")
                try pair.client.say("last words")
                if isClosed {
                    pair.server.close()
                } else {
                    complaints.expect(!pair.server.cancel(request), "too late to cancel")
                }
                let packet = try port.next()
                complaints.expect(packet.operation === request && packet.key == 77, "its packet")
                complaints.equal(packet.errorCode, 0)
                complaints.equal(request.text(packet.bytes), "last words")
                complaints.expect(port.hasNothingMore, "one packet")
                pair.server.close()
            }
        }
    }

    @Test("I2.2: what is posted arrives untouched, whatever it is", arguments: DriverKind.permitted)
    func verbatim(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let values: [(Int, UInt)] = [(0, 0), (-1, .max), (.min, 1), (.max, 1 << 63), (12_345, 67_890)]
            for (bytes, key) in values {
                let operation = Request()
                operation.offset = 99
                try port.post(bytes: bytes, key: key, operation: operation)
                let packet = try port.next()
                complaints.expect(packet.operation === operation && packet.isPosted, "the operation")
                complaints.equal(packet.bytes, bytes)
                complaints.equal(packet.key, key)
                complaints.expect(packet.error == nil, "no error")
                complaints.equal(operation.kind, .none, "what was never posted on a handle")
                complaints.equal(operation.offset, 99)
            }
            // Not even one that is pending elsewhere is looked at.
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let pending = Request()
            try pair.server.receive(pending, into: pending.memory)
            try port.post(bytes: 3, key: 2, operation: pending)
            let posted = try port.next()
            complaints.expect(posted.operation === pending && posted.key == 2, "the posted packet")
            complaints.expect(pending.isPending, "the operation goes on")
            try pair.client.say("real")
            let real = try port.next()
            complaints.expect(real.key == 1 && real.bytes == 4 && !real.isPosted, "its own packet")
        }
    }

    @Test(
        "I2.3: a batch may hold failures, and each packet tells of its own", arguments: DriverKind.permitted)
    func failuresInBatch(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pairs = try Pair.several(3)
            let requests = (0..<3).map { Request($0) }
            for (key, pair) in pairs.enumerated() {
                try port.associate(pair.server, key: UInt(key))
                try pair.server.receive(requests[key], into: requests[key].memory)
            }
            try pairs[0].client.say("fine")
            try pairs[1].client.abort()
            try pairs[2].client.say("also")
            var batch = PacketBatch(capacity: 8)
            var packets: [UInt: Packet] = [:]
            while packets.count < 3 {
                guard case .packets = port.dequeue(into: &batch, timeout: Gate.patience) else {
                    return complaints.add("only \(packets.count) packets")
                }
                while let packet = batch.next() { packets[packet.key] = packet }
            }
            complaints.equal(packets[0]?.errorCode, 0)
            complaints.equal(packets[1]?.errorCode, ECONNRESET)
            complaints.equal(packets[1]?.error?.code, ECONNRESET)
            complaints.equal(packets[2]?.bytes, 4)
        }
    }

    // MARK: Starting operations

    @Test(
        "I2.1: done at once or pending, a packet comes; refused, an error is thrown",
        arguments: DriverKind.permitted)
    func threeOutcomes(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let send = Request(1)
            try pair.server.send(send, from: .init(rebasing: UnsafeRawBufferPointer(send.memory)[..<3]))
            // With readiness a send is tried at once; a ring's answer has to be fetched.
            if driver == .epoll { complaints.expect(!send.isPending, "done inside the post") }
            let receive = Request(2)
            try pair.server.receive(receive, into: receive.memory)
            complaints.expect(receive.isPending, "nothing to receive yet: pending")
            let sent = try port.next()
            complaints.expect(sent.operation === send && sent.bytes == 3, "the packet of the send")
            complaints.expect(port.hasNothingMore, "one packet of the send, none of the receive")
            try pair.client.say("x")
            complaints.expect(try port.next().operation === receive, "the packet of the receive")
            let refused = Request(3)
            pair.server.close()
            complaints.refused(EBADF, "a receive on a closed socket") { () throws(SystemError) in
                try pair.server.receive(refused, into: refused.memory)
            }
            complaints.expect(port.hasNothingMore, "no packet for what was refused")
        }
    }

    @Test(
        "I2.1: a post that is refused queues nothing, and the operation is the caller's again",
        arguments: DriverKind.permitted)
    func refusals(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let request = Request()
            let memory = request.memory
            let unconnected = try Socket.unbound()
            try port.associate(unconnected, key: 1)
            complaints.refused(ENOTCONN, "a receive without a connection") { () throws(SystemError) in
                try unconnected.receive(request, into: memory)
            }
            complaints.refused(ENOTCONN, "a send without a connection") { () throws(SystemError) in
                try unconnected.send(request, from: UnsafeRawBufferPointer(memory))
            }
            let pair = try Pair()
            try port.associate(pair.server, key: 2)
            try pair.server.shutDownSending()
            complaints.refused(ESHUTDOWN, "a send after the end of sending") { () throws(SystemError) in
                try pair.server.send(request, from: UnsafeRawBufferPointer(memory))
            }
            // The very same operation, accepted at last.
            try pair.server.receive(request, into: memory)
            try pair.client.abort()
            complaints.equal(try port.next().errorCode, ECONNRESET)
            complaints.refused(ECONNRESET, "a receive after the reset") { () throws(SystemError) in
                try pair.server.receive(request, into: memory)
            }
            complaints.expect(!request.isPending && port.hasNothingMore, "nothing pending, nothing queued")
            let listener = try Socket.listener(on: .loopback())
            try port.associate(listener, key: 3)
            complaints.refused(EFAULT, "an accept without room for addresses") { () throws(SystemError) in
                try listener.accept(request, Socket(), into: memory, receiveLength: memory.count)
            }
            try port.post()
            complaints.expect(try port.next().isPosted && port.hasNothingMore, "an empty queue")
        }
    }

    @Test(
        "an operation can do without its packet; its event and its result tell",
        arguments: DriverKind.permitted)
    func withoutPacket(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let quiet = Request()
            let event = Flag()
            quiet.event = event
            quiet.suppressesPacket = true
            try pair.server.receive(quiet, into: quiet.memory)
            try pair.client.say("quiet")
            complaints.expect(port.hasNothingMore, "no packet")
            complaints.expect(event.isSet && !quiet.isPending, "the event is set")
            complaints.equal(quiet.text(quiet.bytes), "quiet")
            // Nor when it fails.
            for isCancelled in [true, false] {
                let other = try Pair()
                try port.associate(other.server, key: 2)
                try other.server.receive(quiet, into: quiet.memory)
                complaints.expect(!event.isSet, "reset")
                if isCancelled { other.server.cancel(quiet) } else { other.server.close() }
                complaints.expect(port.hasNothingMore, "no packet of a failure")
                complaints.expect(event.isSet && quiet.errorCode == SystemError.cancelled, "the event is set")
                complaints.equal(quiet.bytes, 0)
            }
            // And it may be posted again, without having been dequeued.
            quiet.suppressesPacket = false
            try pair.server.receive(quiet, into: quiet.memory)
            try pair.client.say("loud")
            complaints.equal(try port.next().bytes, 4)
        }
    }

    @Test(
        "an event is reset by the post and set besides the packet; results count when it is over",
        arguments: DriverKind.permitted)
    func eventAndPacket(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let request = Request()
            let event = Flag()
            event.set()
            request.event = event
            for text in ["first", "second time"] {
                try pair.server.receive(request, into: request.memory)
                complaints.expect(!event.isSet && request.isPending, "reset and pending")
                complaints.equal(request.bytes, 0, "while pending")
                complaints.expect(request.error == nil, "no error while pending")
                try pair.client.say(text)
                let packet = try port.next()
                complaints.expect(event.isSet && !request.isPending, "set, and over")
                complaints.equal(request.bytes, text.utf8.count)
                complaints.equal(packet.bytes, text.utf8.count)
            }
            complaints.equal(event.timesReset, 2)
        }
    }

    @Test(
        "I2.1: an operation is in flight once: posting it again is refused, also while its packet is queued",
        arguments: DriverKind.permitted)
    func inFlightOnce(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pairs = try Pair.several(2)
            for pair in pairs { try port.associate(pair.server, key: 1) }
            let request = Request()
            let other = Request(room: 64)
            try pairs[0].server.receive(request, into: request.memory)
            for pair in pairs {
                complaints.refused(EALREADY, "a second post") { () throws(SystemError) in
                    try pair.server.receive(request, into: other.memory)
                }
            }
            // Complete, and not dequeued: still in flight. The posted packet is there so that somebody asks.
            try pairs[0].client.say("mine")
            try pairs[1].server.receive(other, into: other.memory)
            try pairs[1].client.say("other")
            let first = try port.next()
            complaints.expect(eventually { port.queuedPackets == 1 }, "the other packet in the queue")
            let queued = first.operation === request ? other : request
            complaints.refused(EALREADY, "a post while the packet is queued") { () throws(SystemError) in
                try pairs[1].server.receive(queued, into: queued.memory)
            }
            let second = try port.next()
            complaints.equal(
                Set([first, second].map { ($0.operation as! Request).text($0.bytes) }), ["mine", "other"])
            try pairs[1].server.receive(queued, into: queued.memory)
            complaints.expect(queued.isPending, "accepted once it has been dequeued")
            for pair in pairs { pair.server.close() }
        }
    }

    @Test(
        "one event for two operations tells too little: the second post resets what the first had set",
        arguments: DriverKind.permitted)
    func sharedEvent(driver: DriverKind) throws {
        try verify { complaints in
            let port = try CompletionPort.on(driver)
            let pair = try Pair()
            try port.associate(pair.server, key: 1)
            let event = Flag()
            let requests = [Request(1), Request(2)]
            for request in requests { request.event = event }
            try pair.server.receive(requests[0], into: requests[0].memory)
            try pair.client.say("x")
            let packet = try port.next()
            complaints.expect(event.isSet, "set by the first")
            try pair.server.receive(requests[1], into: requests[1].memory)
            complaints.expect(!event.isSet, "the second post has wiped it out")
            // The packet had told already, and cannot be wiped out.
            complaints.expect(packet.operation === requests[0] && packet.bytes == 1, "the packet")
            pair.server.close()
        }
    }
}
