/// The receiving half of a connection: the questions, and the file that is arriving.
struct FileReceiver: FileHalf {
    let service: FileService
    var waiting: [FileRequest] = []
    var current: FileUnderWay<IncomingFile>?
    var isConnected = false
    /// The question that has been asked, as long as it is the first of those that wait, and until when an answer may come.
    private var asked: (id: UInt32, deadline: UInt64) = (0, 0)
    /// The present moment: set before each step.
    var now: UInt64 = 0

    init(_ service: FileService) { self.service = service }

    /// A file is being made, or is on its way.
    var isBusy: Bool { current != nil }

    /// All of a file is here, and it is not yet told that it is.
    var isKeeping: Bool { current.map { $0.state.phase == .completed || $0.state.phase == .over } ?? false }

    // MARK: Questions

    /// One at a time, and when nothing is arriving: so the time that an answer may take is not taken by other files.
    mutating func start() -> [FileAction] {
        guard isConnected, current == nil, let next = waiting.first, next.id != asked.id else { return [] }
        asked = (next.id, now + service.options.limits.answer)
        return [.say(TransferMessage(.ask, next.id, text: next.name.description.utf8))]
    }

    /// Takes the question of that number back, if it is the one that has been asked.
    private mutating func take(_ number: UInt32) -> FileRequest? {
        guard number == asked.id, number == waiting.first?.id else { return nil }
        return waiting.removeFirst()
    }

    /// The file of that question will not come.
    mutating func declined(_ number: UInt32, _ failure: TransferFailure, isFromPeer: Bool)
        -> [FileAction]
    {
        guard let question = take(number) else { return [] }
        return [question.failed(failure, isFromPeer: isFromPeer)] + start()
    }

    // MARK: A file

    /// A file is announced: to be made, or refused. Nothing is written before this side has agreed, and under no other name
    /// than a safe one. (I8.5)
    mutating func announced(_ message: TransferMessage, _ unasked: TransferObserver)
        -> [FileAction]
    {
        let (question, options) = (take(message.count), service.options)
        let name = SafeName(message.text)
        let isWelcome = message.count == 0 ? options.takesUnasked : question?.name == name
        let folder = question?.path ?? options.folder
        let observer = question?.observer ?? unasked
        // One at a time: a peer that announces a second one does not keep to the exchange.
        guard let name, isWelcome, let folder, current == nil else {
            let failure: TransferFailure =
                name == nil ? .unsafeName : !isWelcome || folder == nil ? .declined : .busy
            let error = TransferError(failure, question?.name.description ?? readableName(message.text))
            return [
                .say(TransferMessage(.refuse, message.id, failure)), .finished(observer, .failure(error)),
            ] + start()
        }
        let request = FileRequest(
            id: message.id, transfer: question?.transfer ?? TransferID(message.id, isPeers: true),
            name: name, path: folder, observer: observer)
        let state = TransferState(size: message.value, limits: options.limits, now: now)
        current = FileUnderWay(request: request, state: state, start: now)
        return [.make(request, size: message.value)]
    }

    /// It has been made, or could not be. Nothing else was received meanwhile.
    mutating func made(_ made: Result<IncomingFile, TransferFailure>) -> [FileAction] {
        let now = now
        switch made {
        // It was called off meanwhile.
        case .success(let file) where current == nil: return [.discard(file)]
        case .success(let file):
            current!.file = file
            return [.say(TransferMessage(.agree, current!.request.id))] + step { $0.agreed(now: now) }
        case .failure(let failure): return step { $0.fail(failure) }
        }
    }

    /// The file whose bytes come now; nil when they are not wanted any more.
    func owner(of id: UInt32) -> IncomingFile? {
        current?.request.id == id && current?.state.phase == .moving ? current?.file : nil
    }

    /// Bytes of a piece have come. Returns where they belong; nil when they are not wanted any more.
    mutating func bytes(_ count: Int, of file: IncomingFile) -> UInt64? {
        current?.file === file ? current!.state.bytes(count, now: now) : nil
    }

    /// Bytes have been written; or could not be.
    mutating func wrote(_ file: IncomingFile, _ count: Int, _ failure: TransferFailure?) -> [FileAction] {
        guard current?.file === file, current!.state.phase != .over else { return [] }
        if let failure { return step { $0.fail(failure) } }
        let step = current!.state.wrote(count, now: now) { file.checksum.value }
        return current!.progress(current!.state.summed, now: now) + act(step)
    }

    mutating func act(_ step: TransferState.Step, isFromPeer: Bool = false) -> [FileAction] {
        switch step {
        case .wait, .piece, .complete: return []
        case .whole: return (current?.file).map { [.keep($0)] } ?? []
        case .failed(let failure, let tells):
            guard let (request, file) = current.map({ ($0.request, $0.file) }) else { return [] }
            current = nil
            return (tells ? [.say(TransferMessage(.refuse, request.id, failure))] : [])
                + (file.map { [.discard($0)] } ?? [])
                + [request.failed(failure, isFromPeer: isFromPeer)] + start()
        }
    }

    /// It has its name; or could not get it.
    mutating func kept(_ kept: Result<Void, TransferFailure>) -> [FileAction] {
        if case .failure(let failure) = kept { return act(.failed(failure, tells: true)) }
        guard let file = current, let sum = file.file?.checksum.value else { return [] }
        current = nil
        return [.say(TransferMessage(.verified, file.request.id)), file.finished(sum, now: now)] + start()
    }

    // MARK: The end

    /// The connection is over.
    mutating func disconnected(_ failure: TransferFailure) -> [FileAction] {
        isConnected = false
        return callOff(failure, tells: false)
    }

    /// Time has passed. (I8.3)
    mutating func tick() -> [FileAction] {
        // The other side sends one file at a time: while one is arriving, it cannot answer.
        if current != nil { asked.deadline = now + service.options.limits.answer }
        let now = now
        let actions = step { $0.tick(now: now) }
        return now < asked.deadline
            ? actions : actions + declined(asked.id, .noAnswer, isFromPeer: false)
    }
}
