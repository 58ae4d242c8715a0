import CompletionPorts
import Contexts
import Glibc
import Kernel
import Timeline

/// A client's connection, with the one operation that goes round on it: wait, answer, wait.
///
/// At any moment it is in exactly one place: pending in the driver, queued in the port, in the budget's line, or in the
/// hands of a worker. So whoever has it when it is over gives everything back, and nobody else can.
///
/// Its lock is held from the look at the mode to the post: a change of mode finds either a pending receive, which it
/// cancels, or none, and then the next look finds the new mode. (I7.5)
final class ThriftyConnection: Overlapped, PageClaimant, @unchecked Sendable {
    /// What it was posted for: by this, and by nothing else, 0 bytes are understood. (I7.4)
    private enum Purpose {
        /// A receive without a buffer: 0 bytes mean that there is something to be read.
        case notice
        /// A receive with a buffer: 0 bytes are the end.
        case receive
        case answer
    }

    /// What is left to be done when the lock is free.
    private enum Rest {
        case nothing
        /// The budget ran short: others are to let go of their buffers.
        case shortage
        /// It is over, and nothing is pending.
        case end
    }

    /// Guarded by the budget's lock.
    var claim = PageClaim()
    private let socket: Socket
    private let house: ThriftyHouse
    private let lock = Lock()
    // Guarded by the lock.
    private var purpose = Purpose.notice { didSet { Recorder.label(identity, "\(purpose)") } }
    /// From the slab: while a receive with a buffer is pending, and while there are bytes to be answered.
    private var buffer: UnsafeMutableRawBufferPointer?
    private var unanswered = 0
    private var isInLine = false
    private var reason: CloseReason?

    init(_ socket: Socket, _ house: ThriftyHouse) {
        self.socket = socket
        self.house = house
        super.init()
    }

    // MARK: What happens to it

    /// Associates it with the port, and posts the first receive.
    func start() {
        perform { () throws(SystemError) in
            try house.port.associate(socket, key: 1)
            return try waitForBytes()
        }
    }

    /// Handles its packet.
    func handle(_ packet: Packet, _ error: SystemError?) {
        perform { () throws(SystemError) in
            // The budget has come: what waited for it is posted.
            if packet.isPosted { return try postFromLine() }
            if let error {
                // Cancelled to change over. That is no end; and a receive that was quicker comes without an error, with
                // its bytes. (I7.5)
                guard error.code == ECANCELED, purpose == .receive else { throw error }
                return try waitForBytes()
            }
            switch purpose {
            case .notice:
                house.noticed()
                return try readNow(isAfterNotice: true)
            case .receive:
                house.received()
                unanswered = packet.bytes
                return unanswered == 0 ? over(.ended) : try answer()
            case .answer:
                // Bytes that came in the meantime are read without another notice. (I7.4)
                return house.modes.mode == .zeroByte ? try readNow() : try waitForBytes()
            }
        }
    }

    /// It was in the line, and its pages are charged. A packet brings it to a worker.
    func budgetCame() {
        do throws(SystemError) {
            try house.port.post(operation: self)
        } catch {
            // The port is closed: there is no worker to go on.
            lock.locked { reason = reason ?? .cancelled }
            finish()
        }
    }

    /// The mode has changed to zero bytes: asks for a receive's buffer back. The packet will tell whether bytes or the
    /// cancel came first; an answer that is being sent is left alone.
    func changeOver() {
        lock.locked {
            if purpose == .receive && !isInLine { socket.cancel(self) }
        }
    }

    /// Ends the connection. What is pending comes back and is given back by its packet's handler.
    func close(_ why: CloseReason = .cancelled) {
        lock.lock()
        guard reason == nil else { return lock.unlock() }
        reason = why
        // In the line there is no packet under way, unless it has just been served.
        let isMine = isInLine && house.budget.withdraw(self)
        lock.unlock()
        socket.close()
        if isMine { finish() }
    }

    // MARK: Steps, under the lock

    private func perform(_ step: () throws(SystemError) -> Rest) {
        lock.lock()
        var rest = Rest.end
        if reason == nil {
            do throws(SystemError) { rest = try step() } catch { reason = CloseReason(error) }
        }
        lock.unlock()
        // After the lock: from here on another worker may have it, unless it is over.
        switch rest {
        case .nothing: break
        case .shortage: house.budgetRanShort()
        case .end: finish()
        }
    }

    private func over(_ why: CloseReason) -> Rest {
        reason = why
        return .end
    }

    /// Posts a receive in the mode that holds now.
    private func waitForBytes() throws(SystemError) -> Rest {
        guard house.modes.mode == .buffered else { return try postNotice() }
        let memory = try ownBuffer()
        purpose = .receive
        let whole = UnsafeRawBufferPointer(memory)
        if claim.isHeld, house.budget.renew(whole, of: self) {
            // Out and in again, and nobody waits.
        } else if house.modes.isAdaptive {
            do throws(SystemError) {
                try house.budget.charge(whole, to: self)
            } catch {
                _ = try postNotice()
                return .shortage
            }
        } else if try !house.budget.chargeOrWait(whole, to: self) {
            isInLine = true
            return .nothing
        }
        try socket.receive(self, into: memory)
        return .nothing
    }

    /// Posts a receive without a buffer. Data that is there already completes it at once.
    private func postNotice() throws(SystemError) -> Rest {
        giveBufferBack()
        purpose = .notice
        try socket.receive(self, into: UnsafeMutableRawBufferPointer(start: nil, count: 0))
        return .nothing
    }

    /// Takes what is there with a plain call, which locks nothing and never waits; when there is nothing more, posts the
    /// next receive. (I7.4)
    private func readNow(isAfterNotice: Bool = false) throws(SystemError) -> Rest {
        let memory = try ownBuffer()
        if claim.isHeld { house.budget.refund(self) }
        guard let count = try socket.receiveNow(into: memory) else {
            if isAfterNotice { house.noticedInVain() }
            return try waitForBytes()
        }
        if count == 0 { return over(.ended) }
        unanswered = count
        return try answer()
    }

    /// Sends the bytes back out of the buffer that they came in. A receive's pages stay charged for that: so an answer
    /// never waits behind receives that wait for clients. (I7.2)
    private func answer() throws(SystemError) -> Rest {
        purpose = .answer
        if !claim.isHeld, try !house.budget.chargeOrWait(received, to: self) {
            isInLine = true
            return .shortage
        }
        try socket.send(self, from: received)
        return .nothing
    }

    private func postFromLine() throws(SystemError) -> Rest {
        isInLine = false
        switch purpose {
        case .receive: try socket.receive(self, into: try ownBuffer())
        case .answer: try socket.send(self, from: received)
        case .notice: break
        }
        return .nothing
    }

    private var received: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer!)[..<unanswered])
    }

    private func ownBuffer() throws(SystemError) -> UnsafeMutableRawBufferPointer {
        if let buffer { return buffer }
        guard let fresh = house.slab.take() else { throw SystemError(ENOBUFS, attempted: "take a buffer") }
        buffer = fresh
        return fresh
    }

    /// First the pages, then the buffer: nobody is to be charged for memory that another already has.
    private func giveBufferBack() {
        if claim.isHeld { house.budget.refund(self) }
        if let buffer { house.slab.giveBack(buffer) }
        buffer = nil
    }

    // MARK: The end

    /// By whoever has it last, once. (I7.2)
    private func finish() {
        socket.close()
        let why = lock.locked {
            giveBufferBack()
            return reason ?? .cancelled
        }
        house.finished(self, why)
    }
}
