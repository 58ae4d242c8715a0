import Contexts
import Glibc
import Kernel
import Timeline

/// A place among the sends of a connection: who takes it first sends first, however long that takes. (I5.6)
public struct SendTicket: Sendable {
    let number: SequenceNumber
}

/// The sending side. The system sends what is posted on one socket in the order of the posts, each whole before the next:
/// so sends are in order when their numbers are given and they are posted in that order, under one lock. (I5.6)
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

    /// Sends back a chunk that was received, without copying it: during the handler's call, or by who keeps it. It is read
    /// into again when it has been sent and nobody else keeps it, and counts as one of the pending reads until then.
    ///
    /// A chunk is one operation, so it goes back once at a time: who sends it again before the first send is through has
    /// made a mistake, and it ends the connection with EALREADY.
    ///
    /// - Throws: as the other one, but ENOBUFS only when it is sent again and again behind an open ticket.
    public func send(_ chunk: Chunk, ticket: SendTicket? = nil) throws(SystemError) {
        precondition(chunk.connection === self && chunk.isReader, "a chunk of another connection")
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

    /// Takes the next place among the sends, for who will know later what to send. A handler that takes it in `received`
    /// answers in the order of what it was asked, whoever works out the answers. What comes behind an open ticket waits,
    /// so each has to be used for one send, or skipped.
    ///
    /// - Throws: as `send`.
    public func takeTicket() throws(SystemError) -> SendTicket {
        lock.lock()
        defer { lock.unlock() }
        try admit(1)
        pendingSends += 1
        defer { nextTicket = nextTicket.next }
        return SendTicket(number: nextTicket)
    }

    /// Gives a ticket up: those behind it need not wait.
    public func skip(_ ticket: SendTicket) {
        lock.lock()
        if reason == nil {
            pendingSends -= 1
            place(nil, ticket)
        }
        finishIfDone()
        leave()
    }

    /// Under the lock: whether `count` more contexts may be used for sending.
    private func admit(_ count: Int, hasTicket: Bool = false) throws(SystemError) {
        let code: Int32? =
            if reason != nil { EBADF } else if !isOpen { ENOTCONN } else if isFinishing && !hasTicket {
                ESHUTDOWN
            } else if pendingSends + count > hub.options.maximumPendingSends || !hasTicket && isFull {
                ENOBUFS
            } else { nil }
        if let code { throw SystemError(code, attempted: "send on \(id)") }
    }

    /// Under the lock: chunks that go back are not counted above, but behind an open ticket they need places, too.
    private var isFull: Bool {
        hub.options.ordersSends && sends.expected.distance(to: nextTicket) >= sends.capacity
    }

    // MARK: The queue

    /// Puts a send to its place, and posts whatever is next. Number and place are taken in one critical section; so is
    /// the post, if it is this one's turn. (I5.6)
    private func enqueue(_ chain: Chunk, _ contexts: Int, _ ticket: SendTicket?) throws(SystemError) {
        lock.lock()
        do throws(SystemError) {
            // A ticket has been counted as one.
            try admit(ticket == nil ? contexts : max(0, contexts - 1), hasTicket: ticket != nil)
        } catch {
            lock.unlock()
            if !chain.isReader { giveBack(chain) }
            throw error
        }
        pendingSends += ticket == nil ? contexts : contexts - 1
        place(chain, ticket)
        leave()
    }

    /// Under the lock: puts a chain of chunks, or a ticket given up, to its place, and posts every send whose turn it is.
    private func place(_ chain: Chunk?, _ ticket: SendTicket?) {
        guard hub.options.ordersSends else { return postAll(chain) }
        let place = sends.insert(chain, ticket?.number ?? nextTicket)
        precondition(place == .taken, "a ticket or a chunk used twice")
        if ticket == nil { nextTicket = nextTicket.next }
        while let next = sends.takeNext() { postAll(next) }
    }

    /// Under the lock: posts a chain. When the connection is over, it only goes home.
    func postAll(_ chain: Chunk?) {
        var next = chain
        while let chunk = next {
            next = chunk.following
            chunk.following = nil
            post(sending: chunk)
        }
    }

    /// Under the lock.
    private func post(sending chunk: Chunk) {
        guard reason == nil else { return settle(chunk, isSent: false) }
        if !chunk.isReader { chunk.connection = self }
        operations += 1
        sending += 1
        Recorder.label(chunk.identity, chunk.isReader ? "back \(chunk.number)" : "send")
        do throws(SystemError) {
            if let file = chunk.file {
                Recorder.label(chunk.identity, "transmit at \(chunk.offset)")
                try socket.transmit(chunk, file, length: chunk.fileLength, head: chunk.contents)
            } else {
                try socket.send(chunk, from: chunk.contents)
            }
        } catch {
            // There would be a hole in the stream.
            operations -= 1
            sending -= 1
            shut(CloseReason(error))
            settle(chunk, isSent: false)
        }
    }

    /// Under the lock: a send has completed.
    func sendIsThrough(_ chunk: Chunk, _ error: Int32) {
        sending -= 1
        if error != 0 { shut(CloseReason(SystemError(error, attempted: "send"))) }
        settle(chunk, isSent: error == 0)
        finishIfDone()
    }

    /// Under the lock: a chunk is not needed for sending any more. One that was read is read again; of another the handler
    /// is told, if it wants to be, and then it goes home.
    private func settle(_ chunk: Chunk, isSent: Bool) {
        if chunk.isReader { return dropShare(of: chunk) }
        pendingSends -= 1
        if isSent, chunk.token != nil { notices.append(chunk) } else { giveBack(chunk) }
    }

    func giveBack(_ chain: Chunk?) {
        var next = chain
        while let chunk = next {
            next = chunk.following
            // Nothing of this life stays.
            (chunk.connection, chunk.following, chunk.file, chunk.token) = (nil, nil, nil, nil)
            chunk.offset = 0
            hub.chunks.giveBack(chunk)
        }
    }

    // MARK: The end of sending

    /// Sends what was accepted so far, those with open tickets included, and then says that this side sends no more. The
    /// connection closes as soon as the other side has ended, too.
    public func finish() {
        lock.lock()
        isFinishing = true
        finishIfDone()
        leave()
    }

    /// Under the lock.
    func finishIfDone() {
        guard isFinishing, isOpen, reason == nil else { return }
        if !isShutDown, sending == 0, pendingSends == 0 {
            isShutDown = true
            do throws(SystemError) { try socket.shutDownSending() } catch { shut(CloseReason(error)) }
        }
        if isShutDown, hasEnded { shut(.ended) }
    }
}

extension Chunk {
    /// Copies bytes in: as many as fit.
    func fill(_ bytes: UnsafeRawBufferPointer) {
        count = min(bytes.count, memory.count)
        memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    }
}
