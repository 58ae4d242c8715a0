import Glibc
import Kernel
import Reordering

/// The sending half of a connection.
extension TransferConnection {
    /// Sends a file. It takes its turn behind those that this connection has to send already: one at a time, whatever
    /// their sizes. (I8.1)
    ///
    /// - Parameters:
    ///   - path: Opened when its turn has come.
    ///   - name: What it will be called; nil for the last step of the path.
    /// - Throws: `unsafeName`; `busy` when too many wait; `disconnected`. Then the observer hears nothing.
    public func send(
        file path: String, as name: String? = nil, _ observer: TransferObserver = TransferObserver()
    ) throws(TransferError) {
        guard let safe = name.map({ SafeName($0) }) ?? SafeName(ofPath: path) else {
            throw TransferError(.unsafeName, readableName((name ?? path).utf8))
        }
        let request = FileRequest(path, safe, observer)
        if let failure = enqueue(request) { throw TransferError(failure, safe.description) }
    }

    /// The other side asks for a file of the folder.
    func answer(_ question: UInt32, _ bytes: [UInt8]) {
        var failure: TransferFailure? = .declined
        if let folder = hub.options.folder, hub.options.answersQuestions {
            failure = .unsafeName
            if let name = SafeName(bytes) {
                let observer = TransferObserver(finished: hub.events.sent)
                failure = enqueue(FileRequest(name.path(in: folder), name, question: question, observer))
            }
        }
        if let failure { locked { after in tell(TransferMessage(.decline, question, failure), &after) } }
    }

    private func enqueue(_ request: FileRequest) -> TransferFailure? {
        let failure: TransferFailure? = locked { _ in
            if isOver { return .disconnected }
            if waitingFiles.count >= hub.options.maximumWaitingFiles { return .busy }
            waitingFiles.append(request)
            return nil
        }
        startNextFile()
        return failure
    }

    /// Opens and announces the next file, unless one is under way.
    func startNextFile() {
        while let (next, id) = locked({ _ in claimNextFile() }) {
            let opened = Result { () throws(TransferFailure) in
                try hub.port.blocking { () throws(TransferFailure) in try OutgoingFile(next, id: id, hub: hub)
                }
            }
            locked { after in
                isOpening = false
                // Unless it was called off meanwhile.
                guard waitingFiles.first === next else { return sendWords(&after) }
                waitingFiles.removeFirst()
                announce(next, opened, &after)
            }
        }
    }

    /// Under the lock: it stays the first of those that wait until it is open.
    private func claimNextFile() -> (FileRequest, UInt32)? {
        guard stream != nil, !isOver, outgoing == nil, !isOpening, let next = waitingFiles.first else {
            return nil
        }
        isOpening = true
        return (next, nextID())
    }

    private func announce(
        _ request: FileRequest, _ opened: Result<OutgoingFile, TransferFailure>, _ after: inout After
    ) {
        switch opened {
        case .success(let file):
            outgoing = file
            let name = request.name.description.utf8
            tell(
                TransferMessage(.announce, file.id, count: request.question, value: file.size, text: name),
                &after)
        case .failure(let failure):
            if request.question != 0 { tell(TransferMessage(.decline, request.question, failure), &after) }
            finish(request.observer, TransferError(failure, request.name.description), &after)
            sendWords(&after)
        }
    }

    /// A step of the file that is under way, if it is the one with this number: an answer to another comes too late.
    func step(_ id: UInt32, isFromPeer: Bool = false, _ body: (inout SendingState) -> SendingState.Step) {
        locked { after in
            guard let outgoing, outgoing.id == id else { return }
            act(body(&outgoing.state), outgoing, isFromPeer: isFromPeer, &after)
        }
    }

    /// A piece has been handed to the system.
    func pieceSent(_ id: UInt32) {
        locked { after in
            guard let outgoing, outgoing.id == id else { return }
            act(outgoing.state.pieceSent(now: monotonicNanoseconds()), outgoing, &after)
            let state = outgoing.state
            if state.phase == .over { return letGo(outgoing, &after) }
            if let progress = outgoing.meter.look(outgoing.name, state.sent, of: state.size) {
                after.append { outgoing.request.observer.progress(progress) }
            }
        }
    }

    /// Under the lock: does what the state says.
    func act(
        _ step: SendingState.Step, _ file: OutgoingFile, isFromPeer: Bool = false, _ after: inout After
    ) {
        switch step {
        case .wait: break
        // Looked at before every piece: one that has begun has to be sent to its end.
        case .piece where !file.isUnchanged, .complete where !file.isUnchanged:
            return act(file.state.fail(.changed), file, &after)
        case .piece(let offset, let count):
            let head = TransferMessage(.piece, file.id, count: UInt32(count), value: offset)
            do {
                // Head and bytes are one send: nothing can come between them. (I8.1)
                try stream?.transmit(
                    file.file, offset: Int64(offset), length: count, head: try head.frame(),
                    token: Int(file.id))
                file.state.pieceBegun(count)
            } catch {
                return act(file.state.fail(.disconnected), file, &after)
            }
        case .complete: tell(TransferMessage(.complete, file.id, value: file.checksum.value), &after)
        case .finished:
            let receipt = file.meter.receipt(file.name, file.size, file.checksum)
            after.append { file.request.observer.finished(.success(receipt)) }
            return letGo(file, &after)
        case .failed(let failure, let tells):
            if tells { tell(TransferMessage(.abort, file.id, failure), &after) }
            finish(file.request.observer, TransferError(failure, file.name, isFromPeer: isFromPeer), &after)
            if file.state.inFlight == 0 { return letGo(file, &after) }
        }
        sumUp(file, &after)
    }

    /// Under the lock: nothing of it is on its way any more, and the next one may begin.
    func letGo(_ file: OutgoingFile, _ after: inout After) {
        guard outgoing === file else { return }
        outgoing = nil
        sendWords(&after)
        after.append { [self] in
            file.file.close()
            startNextFile()
        }
    }

    // MARK: The sum

    /// Under the lock: reads on, side by side with the sending, but not far ahead of it.
    private func sumUp(_ file: OutgoingFile, _ after: inout After) {
        guard let stream, file.state.phase == .sending, !file.isSumming,
            file.summed < file.state.mayBeSummed, let read = hub.reads.take()
        else { return }
        do throws(SystemError) {
            file.isSumming = true
            try read.start(file, self, stream)
        } catch {
            file.isSumming = false
            read.giveBack(to: hub)
            act(file.state.fail(.cannotRead), file, &after)
        }
    }

    /// A read has been summed up.
    func summedUp(_ file: OutgoingFile, _ bytes: Int, _ error: SystemError?) {
        locked { after in
            file.isSumming = false
            file.summed += UInt64(bytes)
            let failure = error.map { TransferFailure($0, writing: false) }
            let step =
                failure.map { file.state.fail($0) } ?? file.state.summedUp(bytes, now: monotonicNanoseconds())
            act(step, file, &after)
        }
    }
}
