import CompletionPorts
import Glibc
import Kernel
import Synchronization

/// The per-socket context. It travels as the completion key, and lives exactly as long as it is needed: every
/// pending operation holds a reference through its `IOContext`, so the count of references is the count of pending
/// operations, and ARC releases once, when the last one has completed. (I4.2, I4.3)
///
/// Any thread may call it; what comes too late throws, and touches no other connection.
public final class Connection: @unchecked Sendable {
    /// Its name.
    public let id = ConnectionID.next()
    let socket: Socket
    // A circle while the connection is open: `close` takes it out of the table.
    private let table: ConnectionTable
    /// Written by the call that takes it in, and read when no reference is left.
    var isRegistered = false
    private let lock = Lock()
    // Guarded by the lock.
    private var reason: CloseReason?
    private var pushes = 0
    /// When bytes last came, in nanoseconds on the monotonic clock.
    private let heard = Atomic<UInt64>(monotonicNanoseconds())

    /// The most pushes that one connection has pending: a client that reads nothing costs no more than these.
    public static let maximumPushes = 8

    init(_ socket: Socket, _ table: ConnectionTable) {
        self.socket = socket
        self.table = table
    }

    // The last pending operation has completed, and all other references are gone. Nothing can come back.
    deinit { if isRegistered { table.registry.released() } }

    /// How long the client has been silent at that moment; nanoseconds on the monotonic clock.
    public func silence(at now: UInt64 = monotonicNanoseconds()) -> Duration {
        let last = heard.load(ordering: .relaxed)
        return .nanoseconds(Int64(max(now, last) - last))
    }

    /// Why it is over; nil while it is open.
    public var closeReason: CloseReason? { lock.locked { reason } }

    /// This connection as a completion key: its address.
    package var key: UInt { UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque()) }

    /// The connection that a packet's key is the address of. Valid as long as the packet's operation has not been let
    /// go: that operation holds the reference.
    static func of(_ packet: Packet) -> Connection {
        Unmanaged<Connection>.fromOpaque(UnsafeRawPointer(bitPattern: packet.key)!).takeUnretainedValue()
    }

    // MARK: Posting

    /// Posts the first receive, with a context from the pool.
    func start() throws(SystemError) { try post(try table.context(), .receive) }

    /// Sends some bytes that the client has not asked for: a copy of them.
    ///
    /// - Throws: EMSGSIZE when they do not fit into one context, ENOBUFS when too many are pending or no context is
    ///   left, EBADF when the connection is closed, ECONNRESET.
    public func push(_ bytes: [UInt8]) throws(SystemError) {
        let refusal: Int32? = lock.locked {
            if bytes.count > IOContext.standardCapacity { return EMSGSIZE }
            if reason != nil { return EBADF }
            if pushes >= Connection.maximumPushes { return ENOBUFS }
            pushes += 1
            return nil
        }
        if let refusal { throw SystemError(refusal, attempted: "push to \(id)") }
        do throws(SystemError) {
            let context = try table.context()
            try post(context, .push, bytes.withUnsafeBytes { context.fill($0) })
        } catch {
            lock.locked { pushes -= 1 }
            throw error
        }
    }

    /// Everything is written before the post, and after it nothing is touched: the packet may be handled already. If
    /// the post fails, no packet will come: the reference is taken back and the context goes home. (I4.3)
    private func post(_ context: IOContext, _ purpose: Purpose, _ bytes: Int = 0) throws(SystemError) {
        context.connection = self
        do throws(SystemError) {
            if purpose == .receive {
                try context.receive(on: socket)
            } else {
                try context.send(bytes, as: purpose, on: socket)
            }
        } catch {
            table.finish(context)
            throw error
        }
    }

    // MARK: Packets

    /// Handles a packet of this connection: goes on with it, or closes it.
    func handle(_ context: IOContext, _ bytes: Int, _ error: SystemError?) {
        if context.purpose == .push { lock.locked { pushes -= 1 } }
        if let reason = CloseReason(context.purpose, bytes: bytes, error: error) {
            table.finish(context)
            return close(reason)
        }
        do throws(SystemError) {
            switch context.purpose {
            case .receive:
                heard.store(monotonicNanoseconds(), ordering: .relaxed)
                try post(context, .reply, bytes)
            case .reply: try post(context, .receive)
            case .push, .none: table.finish(context)
            }
        } catch {
            close(CloseReason(error))
        }
    }

    // MARK: The end

    /// Asks for everything that is pending to be cancelled. It asks, no more: the packets tell, and the first that was
    /// cancelled ends the connection.
    ///
    /// - Returns: false when there was nothing to cancel. That is no error, and packets may be on their way.
    @discardableResult
    public func cancel() -> Bool { socket.cancel() }

    /// Ends the connection. The first reason counts and is announced, once; a second call does nothing. What is
    /// pending comes back as cancelled, or as done if it was quicker, and each packet gives its reference back. (I4.4)
    public func close(_ reason: CloseReason = .cancelled) {
        let isFirst = lock.locked {
            guard self.reason == nil else { return false }
            self.reason = reason
            return true
        }
        guard isFirst else { return }
        socket.close()
        table.remove(self, reason)
    }
}
