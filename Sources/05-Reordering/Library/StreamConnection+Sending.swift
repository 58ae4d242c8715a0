import Contexts
import Glibc
import Kernel
import Timeline

/// Sending: from any thread, in the order of the calls.
extension StreamConnection {
    /// Sends a copy of some bytes. It returns at once; if the connection breaks meanwhile, `closed` tells.
    ///
    /// - Parameters:
    ///   - ticket: The place to send it at, from `takeTicket`; nil for behind everything so far.
    ///   - token: If not nil, the handler is told when all of it has been handed to the system.
    /// - Throws: ENOBUFS when too much is pending: nothing of it is sent then, and a ticket stays good. EBADF after
    ///   `close`, ESHUTDOWN after `finish`, ENOTCONN before `opened`.
    public func send(
        _ bytes: UnsafeRawBufferPointer, ticket: SendTicket? = nil, token: Int? = nil
    ) throws(SystemError) {
        let capacity = hub.options.chunkCapacity
        let pieces = max(1, (bytes.count + capacity - 1) / capacity)
        guard pieces <= hub.options.maximumPendingSends else {
            throw SystemError(ENOBUFS, attempted: "send \(bytes.count) bytes at once")
        }
        var chain = ChunkQueue()
        for piece in 0..<pieces {
            guard let chunk = hub.chunks.take() else {
                giveBack(chain.chain())
                throw SystemError(ENOBUFS, attempted: "send")
            }
            let end = min(bytes.count, (piece + 1) * capacity)
            chunk.fill(UnsafeRawBufferPointer(rebasing: bytes[(piece * capacity)..<end]))
            if piece == pieces - 1 { chunk.token = token }
            chain.append(chunk)
        }
        try enqueue(chain.chain()!, pieces, ticket)
    }

    /// The same for an array.
    public func send(_ bytes: [UInt8], ticket: SendTicket? = nil, token: Int? = nil) throws(SystemError) {
        try bytes.withUnsafeBytes { bytes in
            Result { () throws(SystemError) in try send(bytes, ticket: ticket, token: token) }
        }.get()
    }

    /// Sends bytes without a copy: many connections may send the same ones. They count as one context, however many they are.
    ///
    /// - Throws: as the other one.
    public func send(_ bytes: SharedBytes, ticket: SendTicket? = nil, token: Int? = nil) throws(SystemError) {
        guard let chunk = hub.chunks.take() else { throw SystemError(ENOBUFS, attempted: "send") }
        chunk.sharedBytes = bytes
        chunk.token = token
        try enqueue(chunk, 1, ticket)
    }

    /// Sends back a chunk that was received, without copying it: during the handler's call, or while it is kept. It is read
    /// into again when it has been sent and is not kept, and counts as one of the pending reads until then.
    ///
    /// A chunk is one operation, so it goes back once at a time: to send it again before the first send has completed is
    /// a mistake, and it ends the connection with EALREADY.
    ///
    /// - Throws: as the other one, but ENOBUFS only when it is sent again and again behind an open ticket.
    public func send(_ chunk: Chunk, ticket: SendTicket? = nil) throws(SystemError) {
        precondition(chunk.connection === self && chunk.isSlot, "a chunk of another connection")
        chunk.keep()
        do throws(SystemError) {
            try enqueue(chunk, 0, ticket)
        } catch {
            _ = chunk.dropShare()
            throw error
        }
    }

    /// Sends a part of a file, behind `head`, as one send that takes its turn among the others.
    ///
    /// - Parameters:
    ///   - length: Bytes of the file; 0 stands for all from `offset` on. A file that turns out to be shorter ends the
    ///     connection.
    ///   - head: Bytes that go before: copied, and at most one chunk's capacity.
    /// - Throws: EINVAL when the offset lies outside the file or there is too much; otherwise as `send`.
    public func transmit(
        _ file: File, offset: Int64 = 0, length: Int = 0, head: [UInt8] = [],
        ticket: SendTicket? = nil, token: Int? = nil
    ) throws(SystemError) {
        let size = try file.size
        guard (0...size).contains(offset), length >= 0, head.count <= hub.options.chunkCapacity,
            length + head.count <= Socket.transmitLimit,
            length > 0 || Int(size - offset) <= Socket.transmitLimit - head.count
        else { throw SystemError.invalid("transmit from \(offset) of \(size) bytes") }
        guard let chunk = hub.chunks.take() else { throw SystemError(ENOBUFS, attempted: "transmit") }
        head.withUnsafeBytes { chunk.fill($0) }
        chunk.file = file
        chunk.fileLength = length
        chunk.offset = offset
        chunk.token = token
        try enqueue(chunk, 1, ticket)
    }

    // MARK: Tickets

    /// Takes the next place among the sends, for what will be known later. A handler that takes it in `received`
    /// answers in the order of what it was asked, whichever thread works them out. What comes behind an open ticket waits,
    /// so each has to be used for one send, or skipped.
    ///
    /// - Throws: as `send`.
    public func takeTicket() throws(SystemError) -> SendTicket {
        lock.lock()
        defer { lock.unlock() }
        try admit(1, nil)
        return sender.takeTicket()
    }

    /// Gives a ticket up: those behind it need not wait.
    public func skip(_ ticket: SendTicket) {
        lock.lock()
        if reason == nil { place(nil, 0, ticket) }
        finishIfDone()
        leave()
    }

    /// Under the lock: whether `contexts` more may be used for sending. A ticket has been counted as one.
    private func admit(_ contexts: Int, _ ticket: SendTicket?) throws(SystemError) {
        let code: Int32? =
            if reason != nil { EBADF } else if !isOpen { ENOTCONN } else {
                sender.refusal(of: ticket == nil ? contexts : contexts - 1, hasTicket: ticket != nil)
            }
        if let code { throw SystemError(code, attempted: "send on \(id)") }
    }

    // MARK: The queue

    /// Puts a send to its place, and posts whatever is next. Number and place are taken in one critical section; so is
    /// the post, if it is this one's turn. (I5.6)
    private func enqueue(_ chain: Chunk, _ contexts: Int, _ ticket: SendTicket?) throws(SystemError) {
        lock.lock()
        do throws(SystemError) {
            try admit(contexts, ticket)
        } catch {
            lock.unlock()
            if contexts > 0 { giveBack(chain) }
            throw error
        }
        // Most have no ticket and find nothing that waits: they need no place.
        if sender.passes(contexts, ticket) { postAll(chain) } else { place(chain, contexts, ticket) }
        // Some have completed already.
        finishIfDone()
        leave()
    }

    /// Under the lock: puts a chain of chunks, or a ticket given up, to its place, and posts every send whose turn it is.
    private func place(_ chain: Chunk?, _ contexts: Int, _ ticket: SendTicket?) {
        sender.insert(chain, contexts, ticket)
        while let next = sender.takeNext() { next.map(postAll) }
    }

    /// Under the lock: posts a chain. When the connection is over, it only goes home.
    func postAll(_ chain: Chunk) {
        var next = chain.following.take()
        post(sending: chain)
        while let chunk = next {
            next = chunk.following.take()
            post(sending: chunk)
        }
    }

    /// Under the lock.
    private func post(sending chunk: Chunk) {
        guard reason == nil else { return recycle(chunk, isSent: false) }
        if !chunk.isSlot { chunk.connection = self }
        sender.wasPosted()
        Recorder.label(chunk.identity, chunk.isSlot ? "back \(chunk.number)" : "send")
        do throws(SystemError) {
            if let file = chunk.file {
                Recorder.label(chunk.identity, "transmit at \(chunk.offset)")
                try socket.transmit(chunk, file, length: chunk.fileLength, head: chunk.contents)
            } else if try socket.sendSkippingPacket(chunk, from: chunk.contents) {
                // The system has taken it whole: a packet would say no more.
                sendCompleted(chunk, chunk.bytes, 0)
            }
        } catch {
            // There would be a hole in the stream.
            sender.wasCompleted()
            shut(CloseReason(error))
            recycle(chunk, isSent: false)
        }
    }

    /// Under the lock: a send has completed.
    func sendCompleted(_ chunk: Chunk, _ bytes: Int, _ error: Int32) {
        sender.wasCompleted()
        counted.sent(bytes)
        if error != 0 { shut(CloseReason(SystemError(error, attempted: "send"))) }
        recycle(chunk, isSent: error == 0)
    }

    /// Under the lock: a chunk is not needed for sending any more. One that was read is read again; of another the handler
    /// is told, if it wants to be, and then it goes home.
    private func recycle(_ chunk: Chunk, isSent: Bool) {
        if chunk.isSlot { return dropShare(of: chunk) }
        sender.contextIsFree()
        if isSent, chunk.token != nil { sender.completed.append(chunk) } else { giveBack(chunk) }
    }

    /// A chain of chunks that were taken for sending goes home.
    func giveBack(_ chain: Chunk?) {
        var next = chain
        while let chunk = next {
            next = chunk.following
            chunk.following = nil
            chunk.reset()
            hub.chunks.giveBack(chunk)
        }
    }

    // MARK: The end of sending

    /// Sends what was accepted so far, those with open tickets included, and then says that this side sends no more. The
    /// connection closes as soon as the other side has ended, too.
    public func finish() {
        lock.lock()
        sender.finish()
        finishIfDone()
        leave()
    }

    /// Under the lock.
    func finishIfDone() {
        guard sender.isFinishing, isOpen, reason == nil else { return }
        if sender.mayShutDown() {
            do throws(SystemError) { try socket.shutDownSending() } catch { shut(CloseReason(error)) }
        }
        if sender.isShutDown, receiver.hasEnded { shut(.ended) }
    }
}
