import Glibc
import Kernel

/// The operations of a socket, awaited. Each throws ECANCELED when its task was cancelled before it had come to anything, and
/// otherwise what the posted operation throws or completes with.
extension Socket {
    /// Receives into the operation's memory: what is there, up to its capacity. 0 is the end of the stream.
    ///
    /// Win32 counterpart: `WSARecv`.
    public func receive(
        into operation: AwaitedOperation, isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) -> Int {
        try await operation.perform(on: self, isolation: isolation) { memory throws(SystemError) in
            try receive(operation, into: memory)
        }
    }

    /// Sends the first `count` bytes of the operation's memory, all of them. When it is cancelled on its way, the operation's
    /// `bytes` says how many had left.
    ///
    /// Win32 counterpart: `WSASend`.
    public func send(
        from operation: AwaitedOperation, count: Int, isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) {
        guard (0...operation.capacity).contains(count) else {
            throw SystemError.invalid("send \(count) bytes of \(operation.capacity)")
        }
        _ = try await operation.perform(on: self, isolation: isolation) { memory throws(SystemError) in
            try send(operation, from: UnsafeRawBufferPointer(rebasing: memory[..<count]))
        }
    }

    /// Takes a client of this listener. The operation needs memory for two addresses.
    ///
    /// Win32 counterpart: `AcceptEx`.
    public func accept(
        with operation: AwaitedOperation, isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) -> Socket {
        let client = Socket()
        _ = try await operation.perform(on: self, isolation: isolation) { memory throws(SystemError) in
            try accept(operation, client, into: memory, receiveLength: 0)
        }
        return client
    }

    /// Connects a socket that is bound. Win32 counterpart: `ConnectEx`.
    public func connect(
        to address: Address, with operation: AwaitedOperation, isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) {
        _ = try await operation.perform(on: self, isolation: isolation) { _ throws(SystemError) in
            try connect(operation, to: address)
        }
    }

    /// Ends the connection in order; with `reuse` the socket is as new. Win32 counterpart: `DisconnectEx`.
    public func disconnect(
        with operation: AwaitedOperation, reuse: Bool = false, isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) {
        _ = try await operation.perform(on: self, isolation: isolation) { _ throws(SystemError) in
            try disconnect(operation, reuse: reuse)
        }
    }

    /// Sends a part of a file; a length of 0 stands for all from the offset on. Win32 counterpart: `TransmitFile`.
    public func transmit(
        _ file: File, offset: Int64 = 0, length: Int = 0, with operation: AwaitedOperation,
        isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) {
        _ = try await operation.perform(on: self, isolation: isolation) { _ throws(SystemError) in
            operation.offset = offset
            try transmit(operation, file, length: length)
        }
    }
}

/// The operations of a file, awaited. What the kernel has begun with a file it finishes: a cancel waits for it.
extension File {
    /// Reads from a position, up to the operation's capacity. Win32 counterpart: `ReadFile`.
    ///
    /// - Throws: `SystemError.endOfFile` at and behind the end; what `Socket`'s throw.
    public func read(
        at offset: Int64, into operation: AwaitedOperation, isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) -> Int {
        try await operation.perform(on: self, isolation: isolation) { memory throws(SystemError) in
            operation.offset = offset
            try read(operation, into: memory)
        }
    }

    /// Writes the first `count` bytes of the operation's memory at a position. Win32 counterpart: `WriteFile`.
    @discardableResult
    public func write(
        at offset: Int64, from operation: AwaitedOperation, count: Int,
        isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) -> Int {
        guard (0...operation.capacity).contains(count) else {
            throw SystemError.invalid("write \(count) bytes of \(operation.capacity)")
        }
        return try await operation.perform(on: self, isolation: isolation) { memory throws(SystemError) in
            operation.offset = offset
            try write(operation, from: UnsafeRawBufferPointer(rebasing: memory[..<count]))
        }
    }
}
