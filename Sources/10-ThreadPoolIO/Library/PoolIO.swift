import CompletionPorts
import Glibc
import Kernel
import Synchronization

/// An operation whose completion calls back. Its owner keeps the memory that it reads or writes until then.
///
/// Win32 counterpart: an `OVERLAPPED` that is used with a thread-pool I/O object.
open class PoolOperation: Overlapped, @unchecked Sendable {
    // Written before the post, read by the thread that has the packet.
    private var io: AnyPoolIO?
    fileprivate var epoch = 0
    private let isTaken = Atomic<Bool>(false)

    /// For one post, by one thread. - Throws: EALREADY when it is posted already.
    fileprivate func take(_ io: AnyPoolIO) throws(SystemError) {
        guard !isTaken.exchange(true, ordering: .acquiring) else {
            throw SystemError(EALREADY, attempted: "post an operation that has not called back")
        }
        self.io = io
    }

    /// It has completed, or was never posted: free for the next post. Nil when it was not posted through a `PoolIO`.
    func release() -> (AnyPoolIO, Int)? {
        guard let io else { return nil }
        self.io = nil
        let epoch = epoch
        isTaken.store(false, ordering: .releasing)
        return (io, epoch)
    }
}

/// The part of `PoolIO` that does not depend on the kind of its handle.
public class AnyPoolIO: PoolObject, @unchecked Sendable {
    fileprivate let callback: PoolIO<Handle>.Callback

    fileprivate init(_ pool: ThreadPool, _ group: PoolGroup?, _ callback: @escaping PoolIO<Handle>.Callback) {
        self.callback = callback
        super.init(pool, group)
    }

    override func called(_ packet: Packet, _ instance: CallbackInstance) {
        // Only operations of this class are posted through it.
        let operation = unsafeDowncast(packet.operation!, to: PoolOperation.self)
        callback(instance, operation, packet.error, packet.bytes)
    }

    /// Announces the callback, posts, and takes the announcement back when the post has failed: so the account is right
    /// whatever happens, and nobody can forget one half of it. (I10.3)
    ///
    /// Win32 counterpart: `StartThreadpoolIo`, the call itself, and `CancelThreadpoolIo` when that has failed.
    fileprivate func start(
        _ operation: PoolOperation, _ post: () throws(SystemError) -> Void
    ) throws(SystemError) {
        try operation.take(self)
        var call: Call?
        do throws(SystemError) {
            let announced = try pool.withThread("post through a closed thread pool") {
                () throws(SystemError) in
                try requireOpen("post through an object")
                return announce()
            }
            call = announced
            operation.epoch = announced.epoch
            try post()
        } catch {
            _ = operation.release()
            if let call {
                pool.monitor.locked { withdraw(call) }
                pool.closePortIfDone()
            }
            throw error
        }
    }
}

/// A handle whose operations call back on the pool's threads.
///
/// It binds the handle to the pool's own port, for good. Operations are posted through this object only, which announces
/// each of them. Callbacks of several operations run at the same time, on any thread of the pool, without a lock; never
/// inside the call that posts.
///
/// To end it: close the handle, wait for the callbacks (everything pending is called back with *cancelled*), then close
/// this object. Win32 counterpart: `CreateThreadpoolIo`.
public final class PoolIO<Resource: Handle>: AnyPoolIO, @unchecked Sendable {
    /// The socket or the file. To be closed by its owner; posting on it directly calls nobody back.
    public let handle: Resource

    /// What is called for a completed operation: the error, or nil, and the bytes that were transferred.
    public typealias Callback = @Sendable (CallbackInstance, PoolOperation, SystemError?, Int) -> Void

    /// Binds a handle.
    ///
    /// - Throws: EINVAL when it belongs to a port already, this pool's or another; EBADF when it or the pool is closed.
    public init(
        _ handle: Resource, _ pool: ThreadPool = .shared, group: PoolGroup? = nil,
        _ callback: @escaping Callback
    ) throws(SystemError) {
        self.handle = handle
        super.init(pool, group, callback)
        do throws(SystemError) {
            // Whose packet it is, the operation knows.
            try pool.port.associate(handle, key: 0)
        } catch {
            close()
            throw error
        }
    }
}

extension PoolIO where Resource == Socket {
    /// Receives into a buffer, which stays the operation's until it calls back. Win32 counterpart: `WSARecv`.
    public func receive(
        _ operation: PoolOperation, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) {
        try start(operation) { () throws(SystemError) in try handle.receive(operation, into: buffer) }
    }

    /// Sends all of a buffer, which stays the operation's until it calls back. Win32 counterpart: `WSASend`.
    public func send(_ operation: PoolOperation, from buffer: UnsafeRawBufferPointer) throws(SystemError) {
        try start(operation) { () throws(SystemError) in try handle.send(operation, from: buffer) }
    }

    /// Accepts into a socket, as chapter 03 has it. Win32 counterpart: `AcceptEx`.
    public func accept(
        _ operation: PoolOperation, _ socket: Socket, into buffer: UnsafeMutableRawBufferPointer,
        receiveLength: Int
    ) throws(SystemError) {
        try start(operation) { () throws(SystemError) in
            try handle.accept(operation, socket, into: buffer, receiveLength: receiveLength)
        }
    }

    /// Connects. Win32 counterpart: `ConnectEx`.
    public func connect(_ operation: PoolOperation, to address: Address) throws(SystemError) {
        try start(operation) { () throws(SystemError) in try handle.connect(operation, to: address) }
    }

    /// Ends the connection, if wanted so that the socket can be used again. Win32 counterpart: `DisconnectEx`.
    public func disconnect(_ operation: PoolOperation, reuse: Bool = false) throws(SystemError) {
        try start(operation) { () throws(SystemError) in try handle.disconnect(operation, reuse: reuse) }
    }
}

extension PoolIO where Resource == File {
    /// Reads at the operation's offset. Win32 counterpart: `ReadFile`.
    public func read(
        _ operation: PoolOperation, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) {
        try start(operation) { () throws(SystemError) in try handle.read(operation, into: buffer) }
    }

    /// Writes at the operation's offset. Win32 counterpart: `WriteFile`.
    public func write(_ operation: PoolOperation, from buffer: UnsafeRawBufferPointer) throws(SystemError) {
        try start(operation) { () throws(SystemError) in try handle.write(operation, from: buffer) }
    }
}
