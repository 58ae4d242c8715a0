import Glibc
import Kernel
import Reordering
import Stage
import Synchronization

/// A client that sends so much, and its server's handler, which looks how many pages its thread had to fetch meanwhile.
private final class Stream: StreamHandler {
    static let bytes = 8 << 20
    /// What came before the first page is counted: until then everything grows.
    private static let warmUp = 2 << 20
    private let received = Atomic<Int>(0)
    private let before = Atomic<Int>(0)
    private let after = Atomic<Int>(0)
    private let largest = Atomic<Int>(0)

    var isOver: Bool { received.load(ordering: .acquiring) == Stream.bytes }
    /// Pages fetched for the bytes behind the warm-up.
    var faults: Int { after.load(ordering: .relaxed) - before.load(ordering: .relaxed) }
    var pages: Int { (Stream.bytes - Stream.warmUp) / Int(getpagesize()) }
    /// Bytes of the largest read.
    var largestRead: Int { largest.load(ordering: .relaxed) }

    func take(_ count: Int) {
        largest.max(count, ordering: .relaxed)
        let now = Stream.faultsOfThread
        if received.load(ordering: .relaxed) < Stream.warmUp { before.store(now, ordering: .relaxed) }
        after.store(now, ordering: .relaxed)
        received.add(count, ordering: .releasing)
    }

    func received(_ chunk: Chunk, on connection: StreamConnection) { take(chunk.contents.count) }

    static func send(to client: Socket) -> Kernel.Thread {
        startThread("client") { try? client.say([UInt8](repeating: 7, count: bytes)) }
    }

    private static var faultsOfThread: Int {
        var usage = rusage()
        // `RUSAGE_THREAD`, which the module leaves out.
        getrusage(1, &usage)
        return usage.ru_minflt
    }
}

/// ⚠︎ Broken on purpose: as much memory as may be needed is posted for each client.
private func brokenOptions(_ options: inout StreamHub.Options) {
    options.chunkCapacity = options.maximumReadSize
}

/// A large buffer for each client that is silent.
public enum LargeBufferForEachClient {
    private static let clients = 50

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "large-buffer-for-each-client",
        title: "every client gets a buffer that is large enough for the one who sends much",
        broken: { driver in try serve(driver, brokenOptions) { $0 > 20 << 20 } },
        fixed: { driver in try serve(driver, { _ in }) { $0 > 1 << 20 } })

    /// One client sends much; then all are silent.
    private static func serve(
        _ driver: DriverKind, _ change: (inout StreamHub.Options) -> Void, isBad: (Int) -> Bool
    ) throws -> Observation {
        var capacity = 0
        let hub = try makeHub(driver, reads: 2, capacity: 4_096) {
            $0.maximumReadSize = 256 << 10
            change(&$0)
            capacity = $0.chunkCapacity
        }
        let pairs = try Pair.several(clients)
        let streams = pairs.map { _ in Stream() }
        for (pair, stream) in zip(pairs, streams) { try hub.adopt(pair.server, handler: stream) }
        let sender = Stream.send(to: pairs[0].client)
        let isThere = eventually { streams[0].isOver }
        sender.join()
        let peak = hub.largerBuffers.counters.peak
        _ = eventually { hub.largerBuffers.counters.inUse == 0 }
        let posted = hub.counters.chunks.inUse * capacity + hub.largerBuffers.counters.inUse
        let isClean = hub.stop()
        return Observation(
            happened: isBad(posted) || !isThere || !isClean,
            lines: [
                "\(clients) clients; one has sent \(readable(Stream.bytes >> 20)) MiB, in reads of up to "
                    + "\(readable(streams[0].largestRead >> 10)) KiB",
                "larger buffers out meanwhile: \(readable(peak >> 10)) KiB; now all are silent, and "
                    + "\(readable(posted >> 10)) KiB wait for them",
            ])
    }
}

/// Large memory that is fetched for each read, and given back after it.
public enum FreshBufferForEachRead {
    private static let size = 256 << 10

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "fresh-buffer-for-each-read",
        title: "a large buffer is allocated for each read, and the system makes every page of it anew",
        broken: { _ in
            let pair = try Pair()
            let stream = Stream()
            let sender = Stream.send(to: pair.client)
            while !stream.isOver {
                // ⚠︎ Broken on purpose: large memory has pages of its own, which are the system's again afterwards.
                let buffer = BufferMemory.take(size)
                defer { BufferMemory.giveBack(buffer) }
                guard eventually({ pair.server.unread > 0 }),
                    let count = try pair.server.tryReceive(into: buffer)
                else { break }
                stream.take(count)
            }
            sender.join()
            return observe(stream, happened: stream.faults > stream.pages / 2)
        },
        fixed: { driver in
            let pair = try Pair()
            let stream = Stream()
            let hub = try makeHub(driver, reads: 2, workers: 1, capacity: 4_096) { $0.maximumReadSize = size }
            try hub.adopt(pair.server, handler: stream)
            let sender = Stream.send(to: pair.client)
            let isThere = eventually { stream.isOver }
            sender.join()
            let isClean = hub.stop()
            let isBad = stream.faults > stream.pages / 8 || stream.largestRead <= 4_096
            return observe(stream, happened: isBad || !isThere || !isClean)
        })

    private static func observe(_ stream: Stream, happened: Bool) -> Observation {
        Observation(
            happened: happened,
            lines: [
                "reads of up to \(readable(stream.largestRead >> 10)) KiB; for \(readable(stream.pages)) pages of bytes "
                    + "the thread had \(readable(stream.faults)) pages made"
            ])
    }
}
