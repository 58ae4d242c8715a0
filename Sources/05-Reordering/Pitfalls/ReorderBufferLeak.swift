import CompletionPorts
import Contexts
import Kernel
import Reordering
import Stage

/// ⚠︎ Broken on purpose: the end gives back the chunk that told of it, and forgets those that wait for it.
final class BrokenReorderer {
    private let pool: FreeList<Read>
    private var waiting: [Int: Read] = [:]
    private var expected = 0

    init(_ pool: FreeList<Read>) { self.pool = pool }

    func handle(_ read: Read, _ error: SystemError?) {
        if error != nil {
            pool.giveBack(read)
            return
        }
        waiting[read.number] = read
        while let next = waiting.removeValue(forKey: expected) {
            expected += 1
            pool.giveBack(next)
        }
    }
}

/// Chunks that wait for a missing one are never given back.
public enum ReorderBufferLeak {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "reorder-buffer-leak",
        title: "a connection ends while chunks wait for an earlier one, and their buffers are gone for good",
        broken: { driver in
            let pair = try Pair()
            var options = CompletionPort.Options()
            options.driver = driver
            let port = try CompletionPort(concurrency: 1, options: options)
            try port.associate(pair.server, key: 1)
            let pool = FreeList(maximumFree: 8) { Read() }
            let reorderer = BrokenReorderer(pool)
            for number in 0..<3 {
                guard let read = pool.take() else { break }
                read.number = number
                try read.post(on: pair.server)
            }
            try pair.client.say("one,two,six.")
            var first: Read?
            for _ in 0..<3 {
                guard case .completed(let packet) = port.dequeue(timeout: .seconds(10)),
                    let read = packet.operation as? Read
                else { break }
                // A slow worker has the first one.
                if read.number == 0 { first = read } else { reorderer.handle(read, nil) }
            }
            // Before he goes on, the connection is closed. So for him it has failed.
            pair.server.close()
            if let first { reorderer.handle(first, SystemError(SystemError.cancelled, attempted: "receive")) }
            port.close()
            let left = pool.counters.inUse
            return Observation(
                happened: left == 2,
                lines: ["the connection is over; chunks that nobody has given back: \(left)"])
        },
        fixed: { driver in
            let pair = try Pair()
            let gate = Gate()
            var probe = StreamProbe()
            probe.arrived = { if $0.kind == .receive, $0.number.value == 0 { gate.pass() } }
            let hub = try makeHub(driver, reads: 3) { $0.probe = probe }
            let sink = Sink()
            let connection = try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,two,six.")
            let bothWait = eventually { connection.window.waiting == 2 }
            let during = hub.counters.chunks.inUse
            connection.close()
            gate.open()
            let isOver = sink.over.pass()
            let isClean = hub.stop()
            let left = hub.counters.chunks.inUse
            return Observation(
                happened: !bothWait || during != 3 || !isOver || !isClean || left != 0,
                lines: [
                    "chunks in use while two wait for the first: \(during)",
                    "the connection is over; chunks that nobody has given back: \(left)",
                ])
        })
}
