/// The sending half of a connection: the files that wait, and the one that is under way. A value: it has no lock, no socket
/// and no file, and says what is to be done next. (I8.3)
struct FileSender {
    private let pieceLimit: Int
    private let maximumWaiting: Int
    private let limits: TransferLimits
    private(set) var waiting: [FileRequest] = []
    private(set) var current: Current?
    /// The first of those that wait is being opened: until that has happened it stays where it is.
    private var isOpening = false
    private var isConnected = false
    /// The present moment: set before each step.
    var now: UInt64 = 0

    /// The file that is under way.
    struct Current {
        let request: FileRequest
        var state: SendingState
        var meter: TransferMeter
        /// How far it has been read and summed up, and the sum; a part is being read.
        var summed: UInt64 = 0
        var sum = Checksum().value
        var isSumming = false
    }

    init(_ options: TransferOptions) {
        pieceLimit = options.pieceLimit
        maximumWaiting = options.maximumWaitingFiles
        limits = options.limits
    }

    /// A file is on its way, or waits for its turn.
    var isBusy: Bool { current != nil || !waiting.isEmpty }

    // MARK: In the line

    /// Puts a file behind those that wait; nil when there are too many.
    mutating func add(_ request: FileRequest) -> [FileAction]? {
        if waiting.count >= maximumWaiting { return nil }
        waiting.append(request)
        return start()
    }

    /// The connection stands.
    mutating func connected() -> [FileAction] {
        isConnected = true
        return start()
    }

    private mutating func start() -> [FileAction] {
        guard isConnected, current == nil, !isOpening, let next = waiting.first else { return [] }
        isOpening = true
        return [.open(next)]
    }

    /// A file has been opened, or could not be.
    mutating func opened(_ request: FileRequest, _ size: Result<UInt64, TransferFailure>) -> [FileAction] {
        isOpening = false
        // Unless it was called off meanwhile.
        guard waiting.first === request else { return [.release] + start() }
        waiting.removeFirst()
        switch size {
        case .success(let size):
            let state = SendingState(size: size, pieceLimit: pieceLimit, limits: limits, now: now)
            current = Current(request: request, state: state, meter: TransferMeter(now))
            let name = request.name.description.utf8
            return [.say(.init(.announce, request.id, count: request.question, value: size, text: name))]
        case .failure(let failure): return refuse(request, failure) + start()
        }
    }

    /// A file that was not begun will not be sent.
    private func refuse(_ request: FileRequest, _ failure: TransferFailure, _ tells: Bool = true)
        -> [FileAction]
    {
        let isAnswer = tells && request.question != 0
        return (isAnswer ? [.say(TransferMessage(.decline, request.question, failure))] : [])
            + [.finished(request.observer, .failure(TransferError(failure, request.name.description)))]
    }

    // MARK: Under way

    /// A step of the file that is under way, if it is the one with this number: an answer to another comes too late.
    mutating func step(
        _ id: UInt32, isFromPeer: Bool = false, _ body: (inout SendingState) -> SendingState.Step
    ) -> [FileAction] {
        guard current?.request.id == id else { return [] }
        return act(body(&current!.state), isFromPeer: isFromPeer)
    }

    /// A piece is being handed to the system.
    mutating func pieceBegun(_ count: Int) { current?.state.pieceBegun(count) }

    /// It has been.
    mutating func pieceSent(_ id: UInt32) -> [FileAction] {
        guard current?.request.id == id else { return [] }
        let step = current!.state.pieceSent(now: now)
        // It was not wanted any more, but its head had promised it.
        if current!.state.phase == .over { return letGo() }
        let (name, state) = (current!.request.name.description, current!.state)
        let progress = current!.meter.look(name, state.sent, of: state.size, now: now)
        return (progress.map { [.progress(current!.request.observer, $0)] } ?? []) + act(step)
    }

    /// A part has been read, and this is the sum up to its end; or it could not be read.
    mutating func summedUp(_ id: UInt32, _ count: Int, _ sum: UInt64, _ failure: TransferFailure?)
        -> [FileAction]
    {
        guard current?.request.id == id else { return [] }
        current!.isSumming = false
        current!.summed += UInt64(count)
        current!.sum = sum
        return act(failure.map { current!.state.fail($0) } ?? current!.state.summedUp(count, now: now))
    }

    private mutating func act(_ step: SendingState.Step, isFromPeer: Bool = false) -> [FileAction] {
        guard let file = current else { return [] }
        let (observer, name) = (file.request.observer, file.request.name.description)
        switch step {
        case .wait: return sumUp()
        case .piece(let offset, let count): return [.piece(offset: offset, count: count)] + sumUp()
        case .complete: return [.say(TransferMessage(.complete, file.request.id, value: file.sum))]
        case .finished:
            let receipt = file.meter.receipt(name, file.state.size, file.sum)
            return [.finished(observer, .success(receipt))] + letGo()
        case .failed(let failure, let tells):
            let error = TransferError(failure, name, isFromPeer: isFromPeer)
            return (tells ? [.say(TransferMessage(.abort, file.request.id, failure))] : [])
                + [.finished(observer, .failure(error))] + (file.state.inFlight == 0 ? letGo() : [])
        }
    }

    /// Nothing of it is on its way any more, and the next one may begin.
    private mutating func letGo() -> [FileAction] {
        current = nil
        return [.release] + start()
    }

    /// Reads on, side by side with the sending, but not far ahead of it.
    private mutating func sumUp() -> [FileAction] {
        guard let file = current, file.state.phase == .sending, !file.isSumming,
            file.summed < file.state.mayBeSummed
        else { return [] }
        current!.isSumming = true
        return [.sum(offset: file.summed, count: Int(min(file.state.mayBeSummed - file.summed, 1 << 30)))]
    }

    // MARK: The end

    /// Calls off everything, or one.
    mutating func callOff(_ failure: TransferFailure, only id: UInt32? = nil, _ tells: Bool = true)
        -> [FileAction]
    {
        let off = waiting.filter { id == nil || $0.id == id }
        waiting.removeAll { id == nil || $0.id == id }
        var actions = off.flatMap { refuse($0, failure, tells) }
        if let current, id == nil || current.request.id == id {
            actions += step(current.request.id) { $0.fail(failure, tells: tells) }
        }
        return actions
    }

    /// The connection is over, and nothing of a piece will come back.
    mutating func disconnected(_ failure: TransferFailure) -> [FileAction] {
        isConnected = false
        return callOff(failure, false) + (current == nil ? [] : letGo())
    }

    /// Time has passed, and so many bytes of the connection have been taken by the other side's system. (I8.3)
    mutating func tick(acknowledged: UInt64?) -> [FileAction] {
        guard let id = current?.request.id else { return [] }
        let now = now
        current!.state.acknowledged(acknowledged, now: now)
        let actions = step(id) { $0.tick(now: now) }
        // Nothing can be said any more to a peer that does not take the piece that it is being sent.
        return current?.state.isStuck(now: now) == true ? actions + [.close] : actions
    }
}
