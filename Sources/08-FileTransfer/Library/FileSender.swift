/// The sending half of a connection: the files that wait, and the one that is under way.
struct FileSender: FileHalf {
    let service: FileService
    var waiting: [FileRequest] = []
    var current: FileUnderWay<OutgoingFile>?
    var isConnected = false
    /// The first of those that wait is being opened: until that has happened it stays where it is.
    private var isOpening = false
    /// The present moment: set before each step.
    var now: UInt64 = 0

    init(_ service: FileService) { self.service = service }

    /// A file is on its way, or waits for its turn.
    var isBusy: Bool { current != nil || !waiting.isEmpty }

    mutating func start() -> [FileAction] {
        guard isConnected, current == nil, !isOpening, let next = waiting.first else { return [] }
        isOpening = true
        return [.open(next)]
    }

    /// A file has been opened, or could not be.
    mutating func opened(
        _ request: FileRequest, _ opened: Result<OutgoingFile, TransferFailure>
    ) -> [FileAction] {
        isOpening = false
        // Unless it was called off meanwhile.
        let isWanted = waiting.first?.id == request.id
        if isWanted { waiting.removeFirst() }
        switch opened {
        case .success(let file) where isWanted:
            let (options, name) = (service.options, request.name.description.utf8)
            let state = TransferState(
                size: file.size, pieceLimit: options.pieceLimit, limits: options.limits, now: now)
            current = FileUnderWay(request: request, state: state, file: file, start: now)
            return [
                .say(.init(.announce, request.id, count: request.question, value: file.size, text: name))
            ]
        case .success(let file): return [.release(file)] + start()
        case .failure(let failure): return (isWanted ? refuse(request, failure) : []) + start()
        }
    }

    // MARK: Under way

    /// A piece has been handed to the system.
    mutating func pieceSent(_ id: UInt32) -> [FileAction] {
        guard current?.request.id == id else { return [] }
        let step = current!.state.pieceSent(now: now)
        // It was not wanted any more, but its head had promised it.
        if current!.state.phase == .over { return letGo() }
        return current!.progress(current!.state.moved, now: now) + act(step)
    }

    /// A part has been read and summed up; or it could not be read.
    mutating func summedUp(_ file: OutgoingFile, _ count: Int, _ failure: TransferFailure?)
        -> [FileAction]
    {
        file.isSumming = false
        guard current?.file === file else { return [] }
        return act(failure.map { current!.state.fail($0) } ?? current!.state.summedUp(count, now: now))
    }

    mutating func act(_ step: TransferState.Step, isFromPeer: Bool = false) -> [FileAction] {
        guard let id = current?.request.id, let file = current?.file else { return [] }
        switch step {
        case .wait: return sumUp()
        // Looked at before every piece: one that has begun has to be sent to its end.
        case .piece where !file.isUnchanged, .complete where !file.isUnchanged:
            return self.step { $0.fail(.changed) }
        case .piece(let offset, let count): return [.piece(offset: offset, count: count)] + sumUp()
        case .complete: return [.say(TransferMessage(.complete, id, value: file.checksum.value))]
        case .whole: return [current!.finished(file.checksum.value, now: now)] + letGo()
        case .failed(let failure, let tells):
            return (tells ? [.say(TransferMessage(.abort, id, failure))] : [])
                + [current!.request.failed(failure, isFromPeer: isFromPeer)]
                + (current!.state.inFlight == 0 ? letGo() : [])
        }
    }

    /// Nothing of it is on its way any more, and the next one may begin.
    private mutating func letGo() -> [FileAction] {
        guard let file = current?.file else { return [] }
        current = nil
        return [.release(file)] + start()
    }

    /// Reads on, side by side with the sending, but not far ahead of it.
    private func sumUp() -> [FileAction] {
        guard let state = current?.state, let file = current?.file, state.phase == .moving,
            !file.isSumming, state.summed < state.mayBeSummed
        else { return [] }
        file.isSumming = true
        return [.sum(offset: state.summed, count: Int(min(state.mayBeSummed - state.summed, 1 << 30)))]
    }

    // MARK: The end

    /// The connection is over, and nothing of a piece will come back.
    mutating func disconnected(_ failure: TransferFailure) -> [FileAction] {
        isConnected = false
        // A file that became shorter in the middle of a piece ends the connection.
        let isChanged = current?.file?.isUnchanged == false
        return (isChanged ? step { $0.fail(.changed, tells: false) } : [])
            + callOff(failure, tells: false) + letGo()
    }

    /// Time has passed, and so many bytes of the connection have been taken by the other side's system. (I8.3)
    mutating func tick(acknowledged: UInt64?) -> [FileAction] {
        let now = now
        current?.state.acknowledged(acknowledged, now: now)
        let actions = step { $0.tick(now: now) }
        // Nothing can be said any more to a peer that does not take the piece that it is being sent.
        return current?.state.isStuck(now: now) == true ? actions + [.close] : actions
    }
}
