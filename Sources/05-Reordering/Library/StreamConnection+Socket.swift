import Contexts
import Kernel
import Timeline

/// What a receiver asks of its connection: the socket, and the slots. With the connection's lock held.
extension StreamConnection: ReceivingEnd {
    func post(_ slot: Chunk) throws(SystemError) {
        Recorder.label(slot.identity, "read \(slot.number)")
        hub.options.probe?.numbered(slot)
        try socket.receive(slot, into: slot.buffer!)
    }

    func postWait() throws(SystemError) {
        let operation = signalOperation()
        Recorder.label(operation.identity, "wait")
        do throws(SystemError) {
            try socket.receive(operation, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
        } catch {
            operation.connection = nil
            throw error
        }
    }

    func readNow(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        try socket.tryReceive(into: buffer)
    }

    func cancel(_ slot: Chunk) { socket.cancel(slot) }

    func cancelWait() {
        if let signal { socket.cancel(signal) }
    }

    func takeSlot() -> Chunk? {
        let slot = hub.chunks.take()
        slot?.connection = self
        return slot
    }

    func returnSlot(_ slot: Chunk) { hub.chunks.giveBack(slot) }

    func takeLarger(over bytes: Int) -> UnsafeMutableRawBufferPointer? { hub.largerBuffers.take(over: bytes) }

    func returnLarger(_ buffer: UnsafeMutableRawBufferPointer) { hub.largerBuffers.giveBack(buffer) }
}

extension StreamConnection {
    /// The last share in the chunk is gone.
    func readAgain(_ chunk: Chunk) {
        lock.lock()
        replan(with: chunk)
        leave()
    }

    /// Under the lock: a send had a share in a chunk that was read.
    func dropShare(of chunk: Chunk) {
        if chunk.dropShare() { replan(with: chunk) }
    }
}
