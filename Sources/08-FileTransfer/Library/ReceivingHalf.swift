import Glibc
import Kernel
import Reordering

/// A file that somebody here has asked for.
struct Question {
    let name: SafeName
    let folder: String
    let observer: TransferObserver
}

/// The receiving half of a connection.
extension TransferConnection {
    /// Asks the other side for a file.
    ///
    /// - Parameter folder: Where it is to arrive; nil for the folder of the options.
    /// - Throws: `unsafeName`; `busy` when too many questions are open; `declined` without a folder; `disconnected`.
    ///   Then the observer hears nothing.
    public func ask(
        for name: String, into folder: String? = nil, _ observer: TransferObserver = TransferObserver()
    ) throws(TransferError) {
        guard let safe = SafeName(name) else { throw TransferError(.unsafeName, readableName(name.utf8)) }
        let failure: TransferFailure? = locked { after in
            if isOver { return .disconnected }
            guard let folder = folder ?? hub.options.folder, !folder.isEmpty else { return .declined }
            if questions.count >= hub.options.maximumWaitingFiles { return .busy }
            questions.append(Question(name: safe, folder: folder, observer: observer))
            askNext(&after)
            return nil
        }
        if let failure { throw TransferError(failure, name) }
    }

    /// Under the lock: asks the next question, one at a time and when nothing is arriving: so the time that an answer may
    /// take is not taken by other files.
    func askNext(_ after: inout After) {
        guard stream != nil, asked == nil, incoming == nil, let question = questions.first else { return }
        let number = nextID()
        asked = (number, monotonicNanoseconds() + hub.options.limits.answer)
        tell(TransferMessage(.ask, number, text: question.name.description.utf8), &after)
    }

    /// Under the lock: takes the question of that number back, if it is the one that has been asked.
    private func takeQuestion(_ number: UInt32) -> Question? {
        guard asked?.number == number, !questions.isEmpty else { return nil }
        asked = nil
        return questions.removeFirst()
    }

    /// Under the lock: the file of that question will not come.
    func answered(
        _ number: UInt32, with failure: TransferFailure, isFromPeer: Bool = false, _ after: inout After
    ) {
        guard let question = takeQuestion(number) else { return }
        let error = TransferError(failure, question.name.description, isFromPeer: isFromPeer)
        finish(question.observer, error, &after)
        askNext(&after)
    }

    /// A file is announced: agrees, or says why not. Nothing is written before this side has agreed, and under no other
    /// name than a safe one. (I8.5)
    func consider(_ message: TransferMessage) {
        let (question, before) = locked { _ in (takeQuestion(message.count), callOffs) }
        let observer = question?.observer ?? TransferObserver(finished: hub.events.received)
        let made = Result { () throws(TransferFailure) in try makeFile(message, question, observer) }
        locked { after in
            switch made {
            // Called off while it was made.
            case .success(let file) where callOffs != before:
                incoming = file
                act(file.state.fail(.aborted), file, &after)
            case .success(let file):
                incoming = file
                tell(TransferMessage(.agree, message.id), &after)
            case .failure(let failure):
                tell(TransferMessage(.refuse, message.id, failure), &after)
                let name = question?.name.description ?? readableName(message.text)
                finish(observer, TransferError(failure, name), &after)
                askNext(&after)
            }
        }
    }

    private func makeFile(_ message: TransferMessage, _ question: Question?, _ observer: TransferObserver)
        throws(TransferFailure) -> IncomingFile
    {
        guard let name = SafeName(message.text) else { throw .unsafeName }
        let isWelcome = message.count == 0 ? hub.options.takesUnasked : question?.name == name
        guard isWelcome, let folder = question?.folder ?? hub.options.folder else { throw .declined }
        // One at a time: who announces a second one does not keep to the exchange.
        if locked({ _ in incoming != nil }) { throw .busy }
        return try hub.port.blocking { () throws(TransferFailure) in
            try IncomingFile(message.id, name, in: folder, size: message.value, hub: hub, observer)
        }
    }

    /// A step of the file that is arriving, if it is the one with this number.
    func step(
        receiving id: UInt32, isFromPeer: Bool = false, _ body: (IncomingFile) -> ReceivingState.Step
    ) {
        locked { after in
            guard let incoming, incoming.id == id else { return }
            act(body(incoming), incoming, isFromPeer: isFromPeer, &after)
        }
    }

    /// Bytes of a piece, where the system has put them: they are summed up and written from there. (I8.7)
    func take(_ bytes: UnsafeRawBufferPointer, of chunk: Chunk) {
        guard let file = pieceOwner else { return }
        lock.lock()
        let offset = file.state.bytes(bytes.count, now: monotonicNanoseconds())
        lock.unlock()
        guard let offset, let write = hub.writes.take() else { return }
        file.checksum.add(bytes)
        write.start(bytes, of: chunk, at: offset, to: file, self)
    }

    /// A write is through.
    func wrote(_ file: IncomingFile, _ bytes: Int, _ error: SystemError?) {
        locked { after in
            guard file.state.phase != .over else { return }
            let failure = error.map { TransferFailure($0, writing: true) }
            let step =
                failure.map { file.state.fail($0) } ?? file.state.wrote(bytes, now: monotonicNanoseconds())
            if let progress = file.meter.look(file.name.description, file.state.written, of: file.state.size)
            {
                after.append { file.observer.progress(progress) }
            }
            act(step, file, &after)
        }
    }

    /// Under the lock: does what the state says.
    func act(
        _ step: ReceivingState.Step, _ file: IncomingFile, isFromPeer: Bool = false, _ after: inout After
    ) {
        switch step {
        case .wait: break
        case .keep: after.append { [self] in keep(file) }
        case .failed(let failure, let tells):
            if tells { tell(TransferMessage(.refuse, file.id, failure), &after) }
            nothingIsArriving(&after)
            let error = TransferError(failure, file.name.description, isFromPeer: isFromPeer)
            after.append { [self] in hub.port.blocking { file.discard() } }
            finish(file.observer, error, &after)
        }
    }

    /// Under the lock: the place for an arriving file is free again.
    private func nothingIsArriving(_ after: inout After) {
        incoming = nil
        askNext(&after)
        finishIfEnded()
    }

    /// All of it is there: it gets its name, and the sender this side's word for it.
    private func keep(_ file: IncomingFile) {
        let kept = Result { () throws(TransferFailure) in
            try hub.port.blocking { () throws(TransferFailure) in try file.keep() }
        }
        locked { after in
            defer { nothingIsArriving(&after) }
            switch kept {
            case .success:
                tell(TransferMessage(.verified, file.id), &after)
                let receipt = file.meter.receipt(file.name.description, file.state.size, file.checksum)
                after.append { file.observer.finished(.success(receipt)) }
            case .failure(let failure):
                tell(TransferMessage(.refuse, file.id, failure), &after)
                finish(file.observer, TransferError(failure, file.name.description), &after)
            }
        }
    }
}
