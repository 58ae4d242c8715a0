import Synchronization

extension Chunk {
    /// Bytes that fit.
    public var capacity: Int { memory.count }

    /// Puts other bytes in the place of those that were received, for `send(chunk)` to send. To be called in the handler's
    /// call, when what was received is not needed any more.
    ///
    /// - Returns: false, and nothing has changed, when they do not fit or somebody keeps the chunk.
    public func refill(_ bytes: UnsafeRawBufferPointer) -> Bool {
        // The handler's call has the one share: nobody can get another from anybody else.
        guard bytes.count <= memory.count, shares.load(ordering: .acquiring) == 1 else { return false }
        fill(bytes)
        return true
    }
}
