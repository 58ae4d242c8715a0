import Contexts
import Framing
import Kernel
import Reordering

/// What the connection calls: the halves hear of it first, and then the program's handler.
extension FileTransfer {
    /// The connection stands.
    public func opened(_ connection: FramedConnection<LengthPrefixed>) {
        precondition(
            connection.codec.maximumLength >= TransferMessage.minimumLength,
            "a codec that has room for a name")
        act {
            link = connection
            return sender.connected() + receiver.connected()
        }
        inner?.opened(connection)
    }

    /// A frame: the program's message, or one about files.
    public func received(_ frame: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        let tag = frame.byteCount > 0 ? frame.unsafeLoad(as: UInt8.self) : .max
        if let inner, inner.messageTag != nil, tag == TransferMessage.programTag || tag > 15 {
            // It has messages of its own beside the program's, and tells them apart itself.
            inner.received(frame, on: connection)
        } else if tag == TransferMessage.programTag {
            inner?.received(frame.extracting(droppingFirst: 1), on: connection)
        } else if let message = try? TransferMessage(frame) {
            take(message, connection)
        } else {
            // What came before it was in order; nothing behind it is.
            act { endAll(.nonsense) }
            connection.close()
        }
    }

    func take(_ message: TransferMessage, _ connection: FramedConnection<LengthPrefixed>) {
        let id = message.id
        if message.kind == .piece {
            connection.passThrough(Int(message.count))
            rawBytesLeft = Int(message.count)
        }
        act {
            let now = sender.now
            switch message.kind {
            case .ask: return answer(id, message.text)
            case .decline: return receiver.declined(id, message.reason, isFromPeer: true)
            case .announce: return receiver.announced(message, observer(service.events.received))
            case .agree: return sender.step(id) { $0.agreed(now: now) }
            case .refuse: return sender.step(id, isFromPeer: true) { $0.fail(message.reason, tells: false) }
            case .verified: return sender.step(id) { $0.verified() }
            case .piece:
                let actions = receiver.step(id) {
                    $0.piece(offset: message.value, count: UInt64(message.count))
                }
                pieceOwner = receiver.owner(of: id)
                return actions
            case .complete:
                let file = receiver.current?.file
                return receiver.step(id) {
                    $0.completed(sum: message.value, now: now) { file?.checksum.value ?? 0 }
                }
            case .abort:
                return receiver.step(id, isFromPeer: true) { $0.fail(message.reason, tells: false) }
            }
        }
    }

    /// Under the lock: the other side asks for a file of the folder.
    func answer(_ question: UInt32, _ bytes: [UInt8]) -> [FileAction] {
        var failure: TransferFailure = .declined
        if let folder = service.options.folder, service.options.answersQuestions {
            guard let name = SafeName(bytes) else {
                return [.say(TransferMessage(.decline, question, .unsafeName))]
            }
            let id = TransferID(nextID())
            let request = FileRequest(
                id: id.number, transfer: id, name: name, path: name.path(in: folder), question: question,
                observer: observer(service.events.sent))
            if let actions = sender.add(request) { return actions }
            failure = .busy
        }
        return [.say(TransferMessage(.decline, question, failure))]
    }

    /// Bytes of a piece, where the system has put them: they are summed up and written from there. (I8.7)
    public func passed(_ range: Range<Int>, of chunk: Chunk, on connection: FramedConnection<LengthPrefixed>)
    {
        guard rawBytesLeft > 0 else { return inner?.passed(range, of: chunk, on: connection) ?? () }
        rawBytesLeft -= range.count
        guard let file = pieceOwner, let write = service.writes.take() else { return }
        let bytes = UnsafeRawBufferPointer(rebasing: chunk.contents[range])
        lock.lock()
        look()
        guard let offset = receiver.bytes(bytes.count, of: file) else {
            lock.unlock()
            return service.writes.giveBack(write)
        }
        write.keep(bytes, of: chunk, at: offset, for: file, self)
        file.unsummed.append(write)
        let isFirst = !file.isSumming
        file.isSumming = true
        lock.unlock()
        if isFirst { service.options.sums { [self] in sumUp(file) } }
    }

    /// Sums up what has come of a file, one part after the other, and has each written.
    func sumUp(_ file: IncomingFile) {
        while true {
            let write: PieceWrite? = lock.locked {
                file.isSumming = !file.unsummed.isEmpty
                return file.isSumming ? file.unsummed.removeFirst() : nil
            }
            guard let write else { return }
            write.start()
        }
    }

    /// A message about files has been handed to the system, or a piece; or something of the program's.
    public func sent(_ token: Int, on connection: FramedConnection<LengthPrefixed>) {
        if token >= 0 { inner?.sent(token, on: connection) }
        act {
            if token == FileTransfer.messageToken { inFlight -= 1 }
            sendOutbox()
            guard token < FileTransfer.messageToken else { return proceed() }
            return sender.pieceSent(UInt32(FileTransfer.messageToken - token))
        }
    }

    /// Under the lock: a piece that found no room may find some now.
    func proceed() -> [FileAction] {
        let now = sender.now
        return sender.step { $0.proceed(now: now) }
    }

    /// The stream is not what it should be.
    public func failed(_ connection: FramedConnection<LengthPrefixed>, _ error: FrameError) {
        // The end of the stream in the middle of something is an end.
        if case .endedInside = error.fault {
            act { endAll(.disconnected) }
        } else {
            act { endAll(.nonsense) }
        }
        if let inner { inner.failed(connection, error) } else { connection.finish() }
    }

    /// The other side says no more. A file that has come whole is kept first, and it hears of that.
    public func ended(_ connection: FramedConnection<LengthPrefixed>) {
        act {
            hasEnded = true
            return []
        }
        if let inner { inner.ended(connection) } else { connection.finish() }
    }

    /// The connection is over.
    public func closed(_ connection: FramedConnection<LengthPrefixed>, _ reason: CloseReason) {
        act { endAll(.disconnected) }
        let last = lock.locked {
            defer { (link, inner) = (nil, nil) }
            return inner
        }
        last?.closed(connection, reason)
    }

    /// Under the lock: the connection is over, or is going to be.
    func endAll(_ failure: TransferFailure) -> [FileAction] {
        hasClosed = true
        outbox.removeAll()
        return sender.disconnected(failure) + receiver.disconnected(failure)
    }

    /// Time has passed. (I8.3)
    public func tick(_ now: UInt64, on connection: FramedConnection<LengthPrefixed>) {
        act(at: now) {
            sendOutbox()
            let acknowledged = sender.current == nil ? nil : connection.stream?.socket.bytesAcknowledged
            return proceed() + sender.tick(acknowledged: acknowledged) + receiver.tick()
        }
        lock.locked { inner }?.tick(now, on: connection)
    }
}
