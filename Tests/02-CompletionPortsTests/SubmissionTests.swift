import CompletionPorts
import CompletionPortsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// When requests are handed over that a worker has posted, with `Submission.afterBatch`.
@Suite(
    "Chapter 02: requests that go after the batch", .serialized,
    .enabled(if: DriverKind.permitted.contains(.ioUring), "io_uring is not permitted here"))
struct Chapter02CompletionPortsSubmission {
    private static let bytes = StaticString("answer")

    private static var answer: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: bytes.utf8Start, count: bytes.utf8CodeUnitCount)
    }

    private static func port(_ concurrency: Int = 1) throws(SystemError) -> CompletionPort {
        var options = CompletionPort.Options()
        options.driver = .ioUring
        options.submission = .afterBatch
        return try CompletionPort(concurrency: concurrency, options: options)
    }

    /// Sends with an operation of its own.
    private static func send(on pair: Pair) throws(SystemError) {
        try pair.server.send(Overlapped(), from: answer)
    }

    private static func hasCome(_ pairs: some Sequence<Pair>) -> Int {
        pairs.reduce(0) { $0 + ($1.client.unread == answer.count ? 1 : 0) }
    }

    @Test("a worker's requests go when it asks again, and not before")
    func afterTheBatch() async throws {
        try await onAThread {
            let port = try Self.port()
            let pairs = try Pair.several(3)
            for pair in pairs { try port.associate(pair.server, key: 1) }
            try port.post()
            _ = port.dequeue()
            // This thread is a worker now.
            for pair in pairs { try Self.send(on: pair) }
            #expect(Self.hasCome(pairs) == 0)
            for _ in pairs {
                guard case .completed = port.dequeue(timeout: Gate.patience) else {
                    return #expect(Bool(false), "a packet of a send")
                }
            }
            #expect(Self.hasCome(pairs) == 3)
            port.close()
        }
    }

    @Test("also when it finds its next packet in the queue, and when it leaves without one")
    func withoutTheDriver() async throws {
        try await onAThread {
            let port = try Self.port()
            let pairs = try Pair.several(2)
            for pair in pairs { try port.associate(pair.server, key: 1) }
            for _ in 0..<2 { try port.post() }
            _ = port.dequeue()
            try Self.send(on: pairs[0])
            _ = port.dequeue()
            #expect(Self.hasCome(pairs) == 1)
            try Self.send(on: pairs[1])
            port.close()
            while port.dequeue(timeout: .zero).isPacket {}
            #expect(Self.hasCome(pairs) == 2)
        }
    }

    @Test("the thirty-second request takes all of them along")
    func many() async throws {
        try await onAThread {
            let port = try Self.port()
            let pairs = try Pair.several(32)
            for pair in pairs { try port.associate(pair.server, key: 1) }
            try port.post()
            _ = port.dequeue()
            for pair in pairs.dropLast() { try Self.send(on: pair) }
            #expect(Self.hasCome(pairs) == 0)
            try Self.send(on: pairs[31])
            #expect(eventually { Self.hasCome(pairs) == 32 })
            port.close()
        }
    }

    @Test("what is posted before or inside `blocking`, and by other threads, goes at once")
    func atOnce() async throws {
        try await onAThread {
            let port = try Self.port()
            let pairs = try Pair.several(4)
            for pair in pairs { try port.associate(pair.server, key: 1) }
            try port.post()
            _ = port.dequeue()
            try Self.send(on: pairs[0])
            #expect(Self.hasCome(pairs) == 0)
            try port.blocking {
                #expect(eventually { Self.hasCome(pairs) == 1 })
                try Self.send(on: pairs[1])
                #expect(eventually { Self.hasCome(pairs) == 2 })
            }
            // And afterwards it is as before.
            try Self.send(on: pairs[2])
            #expect(Self.hasCome(pairs) == 2)
            startThread("another") { try? Self.send(on: pairs[3]) }.join()
            // It has taken along what lay there.
            #expect(eventually { Self.hasCome(pairs) == 4 })
            port.close()
        }
    }

    @Test("a handler that runs on does not keep its requests back where there is another worker")
    func longHandler() async throws {
        try await onAThread {
            let port = try Self.port()
            let pairs = try Pair.several(1)
            try port.associate(pairs[0].server, key: 1)
            let other = startThread("other") { while port.dequeue().isPacket {} }
            try port.post()
            try port.post()
            while !port.dequeue(timeout: .milliseconds(1)).isPacket { try port.post() }
            try Self.send(on: pairs[0])
            // Neither says that it blocks, nor does: it computes.
            let end = Deadline.after(Gate.patience)
            while Self.hasCome(pairs) == 0, !end.hasPassed {}
            #expect(Self.hasCome(pairs) == 1)
            port.close()
            other.join()
        }
    }

    @Test("a worker that ends takes nothing with it")
    func endOfWorker() async throws {
        try await onAThread {
            let port = try Self.port()
            let pairs = try Pair.several(1)
            try port.associate(pairs[0].server, key: 1)
            startThread("worker") {
                try? port.post()
                _ = port.dequeue()
                try? Self.send(on: pairs[0])
            }.join()
            #expect(eventually { Self.hasCome(pairs) == 1 })
            port.close()
        }
    }
}

extension Dequeued {
    fileprivate var isPacket: Bool {
        switch self {
        case .completed, .failed: true
        case .timedOut, .closed: false
        }
    }
}
