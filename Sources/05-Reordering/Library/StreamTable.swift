import CompletionPorts
import Contexts
import Glibc
import Kernel
import PrepostedAccepts

/// All connections of a hub, and the book-keeping.
final class StreamTable: @unchecked Sendable {
    let port: CompletionPort
    let options: StreamHub.Options
    let chunks: FreeList<Chunk>
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var open: [ConnectionID: StreamConnection] = [:]
    private var pools: [AcceptPool] = []
    private var count: StreamHub.Counters
    private var isStopping = false

    init(_ port: CompletionPort, _ options: StreamHub.Options) {
        self.port = port
        self.options = options
        let capacity = options.chunkCapacity
        let each = options.pendingReads + options.maximumPendingSends
        let (all, isBeyond) = options.maximumConnections.multipliedReportingOverflow(by: each)
        chunks = FreeList(maximumFree: options.maximumFreeChunks, maximumInUse: isBeyond ? .max : all) {
            Chunk(capacity: capacity)
        }
        count = StreamHub.Counters(chunks: chunks.counters)
    }

    var counters: StreamHub.Counters {
        let chunks = chunks.counters
        return monitor.locked {
            var now = count
            now.chunks = chunks
            return now
        }
    }

    func find(_ id: ConnectionID) -> StreamConnection? { monitor.locked { open[id] } }

    func snapshot() -> [StreamConnection] { monitor.locked { Array(open.values) } }

    // MARK: Packets

    func handle(_ packet: Packet, _ error: SystemError?) {
        if let chunk = packet.operation as? Chunk {
            chunk.connection?.take(chunk, packet.bytes, packet.errorCode)
        } else if let task = packet.operation as? HubTask {
            task.completed(packet.bytes, error)
        } else if let errand = packet.operation as? Errand {
            if packet.isPosted { errand.connection.look() } else { errand.connection.connected(error) }
        } else {
            // A listener's key is its place among the pools.
            let pool = monitor.locked { pools.dropFirst(Int(clamping: packet.key)).first }
            pool?.handle(packet, error)
        }
    }

    /// Lets a worker look at a connection.
    func nudge(_ connection: StreamConnection) {
        // A port that is closed has nobody who could: then it is done here.
        if (try? port.post(operation: Errand(connection))) == nil { connection.look() }
    }

    // MARK: In and out

    func listen(
        _ listener: Socket, _ handler: @escaping @Sendable (StreamConnection) -> any StreamHandler
    ) throws(SystemError) {
        let pool = try AcceptPool(on: listener, options: options.accepts) { [self] arrival in
            let connection = StreamConnection(arrival.client.socket, self)
            connection.handler = handler(connection)
            if (try? admit(connection)) != nil { connection.start() }
        }
        let key = try monitor.locked { () throws(SystemError) -> Int in
            if isStopping { throw SystemError.closed("listen") }
            pools.append(pool)
            return pools.count - 1
        }
        try port.associate(listener, key: UInt(key))
        try pool.start()
    }

    func connect(_ address: Address, _ handler: any StreamHandler) throws(SystemError) -> StreamConnection {
        let socket = try Socket(boundTo: address.isIPv6 ? .loopback6() : .loopback())
        let connection = StreamConnection(socket, self)
        connection.handler = handler
        try admit(connection)
        connection.lock.locked { connection.operations = 1 }
        do throws(SystemError) {
            try socket.connect(Errand(connection), to: address)
        } catch {
            connection.connected(error)
        }
        return connection
    }

    /// Takes a connection in: from here on it is announced and released.
    func admit(_ connection: StreamConnection) throws(SystemError) {
        let socket = connection.socket
        do throws(SystemError) {
            try port.associate(socket, key: 0)
            try monitor.locked { () throws(SystemError) in
                if isStopping { throw SystemError.closed("take a connection in") }
                if open.count >= options.maximumConnections {
                    count.refused += 1
                    throw SystemError(ENOBUFS, attempted: "take a connection in")
                }
                open[connection.id] = connection
                connection.isInTable = true
                count.opened += 1
            }
        } catch {
            socket.close()
            throw error
        }
        // A client that is gone already will be noticed by its first read.
        try? socket.setNoDelay()
        try? options.keepAlive?.apply(to: socket)
    }

    func remove(_ connection: StreamConnection, _ reason: CloseReason) {
        let window = connection.window
        let pools = monitor.locked {
            open[connection.id] = nil
            count.announced += 1
            count.reasons[reason, default: 0] += 1
            count.window.mostWaiting = max(count.window.mostWaiting, window.mostWaiting)
            count.window.early += window.early
            monitor.broadcast()
            return isStopping ? [] : self.pools
        }
        for pool in pools { pool.descriptorClosed() }
    }

    func wasReleased() { monitor.locked { count.released += 1 } }

    // MARK: The end

    func stop(within patience: Duration) -> Bool {
        let pools = monitor.locked {
            isStopping = true
            return self.pools
        }
        for pool in pools { pool.stop() }
        for connection in snapshot() { connection.close() }
        let deadline = Deadline.after(patience)
        return monitor.locked {
            // Chunks that somebody keeps come back without a word: hence the short waits.
            while count.announced < count.opened || chunks.counters.inUse > 0 {
                if deadline.hasPassed { return false }
                monitor.wait(until: .after(.milliseconds(1)))
            }
            // The pools refer to this table.
            self.pools = []
            return true
        }
    }
}

/// Brings a worker to a connection: posted as it is, or with a connect.
private final class Errand: Overlapped, @unchecked Sendable {
    let connection: StreamConnection

    init(_ connection: StreamConnection) {
        self.connection = connection
        super.init()
    }
}

/// An operation of somebody else on a hub's port, such as a read of a file: a worker calls it when it is through.
open class HubTask: Overlapped, @unchecked Sendable {
    /// The operation has completed, with so many bytes, or with an error. It is idle again.
    open func completed(_ bytes: Int, _ error: SystemError?) {}
}
