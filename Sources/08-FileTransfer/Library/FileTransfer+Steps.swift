import Contexts
import Framing
import Glibc
import Kernel
import Reordering

/// What the two halves have decided is done here.
extension FileTransfer {
    /// Decides something under the lock, does there what is to be done at once, and the rest when the lock is free again.
    func act(at moment: UInt64? = nil, _ decide: () -> [FileAction]) {
        var later: [() -> Void] = []
        lock.lock()
        look(at: moment)
        perform(decide(), &later)
        if let link {
            if service.options.refusesMessages { link.refusesMessages = sender.isBusy }
            if hasEnded { link.delayFinish(receiver.isKeeping || !outbox.isEmpty) }
            keepPort(link.stream)
        }
        lock.unlock()
        for step in later { step() }
    }

    /// Under the lock: the packets of a file under way come to the connection's port, so the connection stays there.
    private func keepPort(_ stream: StreamConnection?) {
        let isNeeded = sender.isBusy || receiver.isBusy
        guard isNeeded != keepsPort, let stream else { return }
        keepsPort = isNeeded
        if isNeeded { stream.stay() } else { stream.mayGo() }
    }

    /// Under the lock, so that time goes one way: tells the halves the time. A clock may have looked earlier.
    func look(at moment: UInt64? = nil) {
        let now = max(sender.now, moment ?? monotonicNanoseconds())
        (sender.now, receiver.now) = (now, now)
    }

    /// Under the lock.
    func perform(_ actions: [FileAction], _ later: inout [() -> Void]) {
        for action in actions {
            switch action {
            case .say(let message): say(message)
            case .piece(let offset, let count): perform(sendPiece(offset, count), &later)
            case .sum(let offset, let count): perform(sumUp(offset, count), &later)
            case .open(let request): later.append { [self] in open(request) }
            case .release(let file): later.append { file.file.close() }
            case .make(let request, let size): later.append { [self] in make(request, size) }
            case .keep(let file): later.append { [self] in keep(file) }
            case .discard(let file): later.append { [self] in blocking { file.discard() } }
            case .progress(let observer, let progress): later.append { observer.progress(progress) }
            case .finished(let observer, let result): later.append { observer.finished(result) }
            case .close: later.append { [self] in connection?.close() }
            }
        }
    }

    /// Under the lock: sends a message about files. One that finds no room waits, and when many do nothing more is read: so
    /// a peer that asks and does not listen waits for itself.
    func say(_ message: TransferMessage) {
        outbox.append(message)
        sendOutbox()
    }

    func sendOutbox() {
        guard let link else { return outbox.removeAll() }
        while inFlight < FileTransfer.mostInFlight, let message = outbox.oldest {
            do throws(SystemError) {
                try link.send(
                    message.body.span.bytes, tagged: message.kind.rawValue, token: FileTransfer.messageToken)
                inFlight += 1
            } catch {
                // The next completed send, or the clock, tries again.
                if error.code == ENOBUFS { break }
                // The connection is over, or has said its last word: `closed` ends everything.
            }
            _ = outbox.popFirst()
        }
        guard (outbox.count > FileTransfer.mostWaiting) != isHoldingBack else { return }
        isHoldingBack.toggle()
        if isHoldingBack { link.stream?.pauseReading(.files) } else { link.stream?.resumeReading(.files) }
    }

    /// Under the lock: head and bytes are one send, so nothing can come between them. (I8.1)
    func sendPiece(_ offset: UInt64, _ count: Int) -> [FileAction] {
        guard let id = sender.current?.request.id, let file = sender.current?.file, let link
        else { return [] }
        let head = TransferMessage(.piece, id, count: UInt32(count), value: offset)
        do throws(SystemError) {
            try link.transmit(
                file.file, offset: Int64(offset), length: count, behind: head.body.span.bytes,
                tagged: head.kind.rawValue, token: FileTransfer.messageToken - Int(id))
            sender.current?.state.pieceBegun(count)
            return []
        } catch {
            return error.code == ENOBUFS ? [] : sender.step { $0.fail(.disconnected) }
        }
    }

    /// Under the lock: reads the next part of what is sent.
    func sumUp(_ offset: UInt64, _ count: Int) -> [FileAction] {
        guard let file = sender.current?.file, let link, let read = service.reads.take() else { return [] }
        do throws(SystemError) {
            try read.start(file, at: offset, upTo: count, self, link)
            return []
        } catch {
            service.reads.giveBack(read)
            return sender.step { $0.fail(.cannotRead) }
        }
    }

    /// What may wait for the disk is said to the port, so that it lets another worker run.
    func blocking<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure)
        -> Result
    {
        guard let port = lock.locked({ link?.stream?.port }) else { return try body() }
        return try port.blocking(body)
    }

    // MARK: Files, without the lock

    /// Opens the file that is sent next, and announces it.
    func open(_ request: FileRequest) {
        let opened = Result { () throws(TransferFailure) in
            guard let port = connection?.stream?.port else { throw .disconnected }
            return try blocking { () throws(TransferFailure) in try OutgoingFile(request, port: port) }
        }
        act { sender.opened(request, opened) }
    }

    /// Makes the file that is to come. In the handler's call: nothing else is received meanwhile.
    func make(_ request: FileRequest, _ size: UInt64) {
        let (id, isUnasked) = (request.transfer, request.transfer.isPeers)
        let made = Result { () throws(TransferFailure) in
            guard !isUnasked || service.events.offered(self, id, "\(request.name)", size) else {
                throw .declined
            }
            guard let stream = connection?.stream else { throw .disconnected }
            let address = isUnasked ? (try? stream.socket.remoteAddress.host) ?? "" : nil
            return try blocking { () throws(TransferFailure) in
                try IncomingFile(request, size, from: address, service, port: stream.port)
            }
        }
        act { receiver.made(made) }
    }

    /// For files that this side has not named.
    func observer(_ finished: @escaping @Sendable (FileTransfer, TransferResult) -> Void) -> TransferObserver
    {
        TransferObserver(
            progress: { [self] in service.events.progress(self, $0) },
            finished: { [self] in finished(self, $0) })
    }

    /// All of it is there: it gets its name, and the sender this side's word for it.
    func keep(_ file: IncomingFile) {
        let kept = Result { () throws(TransferFailure) in
            try blocking { () throws(TransferFailure) in try file.keep() }
        }
        act { receiver.kept(kept) }
    }

    /// A part of what is sent has been read and summed up.
    func summedUp(_ file: OutgoingFile, _ bytes: Int, _ error: SystemError?) {
        let failure = error.map { TransferFailure($0, writing: false) }
        act { sender.summedUp(file, bytes, failure) }
    }

    /// A part of what arrives has been summed up and written.
    func wrote(_ file: IncomingFile, _ bytes: Int, _ error: SystemError?) {
        let failure = error.map { TransferFailure($0, writing: true) }
        act { receiver.wrote(file, bytes, failure) }
    }
}

extension PauseReasons {
    /// Messages about files wait to be sent.
    public static let files = PauseReasons(rawValue: 4)
}
