/// A file that this side has asked for.
struct Question: Sendable {
    let id: UInt32
    let name: SafeName
    let folder: String
    let observer: TransferObserver
}

/// A file that has been announced, and is to be made.
struct Arrival: Sendable {
    let id: UInt32
    let name: SafeName
    let size: UInt64
    let folder: String
    /// Nil when this side has not asked for it.
    let observer: TransferObserver?
    fileprivate let question: UInt32
}

/// The receiving half of a connection: the questions, and the file that is arriving. A value, as the other half. (I8.3)
struct FileReceiver {
    private let folder: String?
    private let takesUnasked: Bool
    private let maximumQuestions: Int
    private let limits: TransferLimits
    private var questions: [Question] = []
    /// The first of them has been asked; until then an answer is waited for.
    private var deadline: UInt64?
    /// A file is being made, and since then it has been called off.
    private var making: (arrival: Arrival, isCalledOff: Bool)?
    private var current: Current?
    private var isConnected = false
    /// The present moment: set before each step.
    var now: UInt64 = 0

    private struct Current {
        let arrival: Arrival
        let observer: TransferObserver
        var state: ReceivingState
        var meter: TransferMeter
        var name: String { arrival.name.description }
    }

    init(_ options: TransferOptions) {
        folder = options.folder
        takesUnasked = options.takesUnasked
        maximumQuestions = options.maximumWaitingFiles
        limits = options.limits
    }

    /// A file is being made, or is on its way.
    var isBusy: Bool { making != nil || current != nil }

    /// All of a file is here, and it is not yet told that it is.
    var isKeeping: Bool { current.map { $0.state.phase != .receiving } ?? false }

    // MARK: Questions

    /// Puts a question behind the others; nil when there are too many.
    mutating func ask(_ question: Question) -> [FileAction]? {
        if questions.count >= maximumQuestions { return nil }
        questions.append(question)
        return askNext()
    }

    /// The connection stands.
    mutating func connected() -> [FileAction] {
        isConnected = true
        return askNext()
    }

    /// One at a time, and when nothing is arriving: so the time that an answer may take is not taken by other files.
    private mutating func askNext() -> [FileAction] {
        guard isConnected, deadline == nil, making == nil, current == nil, let next = questions.first else {
            return []
        }
        deadline = now + limits.answer
        return [.say(TransferMessage(.ask, next.id, text: next.name.description.utf8))]
    }

    /// Takes the question of that number back, if it is the one that has been asked.
    private mutating func take(_ number: UInt32) -> Question? {
        guard deadline != nil, questions.first?.id == number else { return nil }
        deadline = nil
        return questions.removeFirst()
    }

    /// The file of that question will not come.
    mutating func declined(_ number: UInt32, _ failure: TransferFailure, isFromPeer: Bool)
        -> [FileAction]
    {
        guard let question = take(number) else { return [] }
        let error = TransferError(failure, question.name.description, isFromPeer: isFromPeer)
        return [.finished(question.observer, .failure(error))] + askNext()
    }

    // MARK: A file

    /// A file is announced: to be made, or refused. Nothing is written before this side has agreed, and under no other name
    /// than a safe one. (I8.5)
    mutating func announced(_ message: TransferMessage, _ unasked: TransferObserver)
        -> [FileAction]
    {
        let question = take(message.count)
        let name = SafeName(message.text)
        let isWelcome = message.count == 0 ? takesUnasked : question?.name == name
        let folder = question?.folder ?? folder
        // One at a time: a peer that announces a second one does not keep to the exchange.
        let isBusy = current != nil || making != nil
        guard let name, isWelcome, let folder, !isBusy else {
            let failure: TransferFailure =
                name == nil ? .unsafeName : !isWelcome || folder == nil ? .declined : .busy
            let error = TransferError(failure, question?.name.description ?? readableName(message.text))
            return [
                .say(TransferMessage(.refuse, message.id, failure)),
                .finished(question?.observer ?? unasked, .failure(error)),
            ] + askNext()
        }
        let arrival = Arrival(
            id: message.id, name: name, size: message.value, folder: folder, observer: question?.observer,
            question: message.count)
        making = (arrival, false)
        return [.make(arrival)]
    }

    /// It has been made, or could not be.
    mutating func made(_ observer: TransferObserver, _ failure: TransferFailure?) -> [FileAction] {
        guard let (arrival, isCalledOff) = making else { return [] }
        making = nil
        let state = ReceivingState(size: arrival.size, limits: limits, now: now)
        current = Current(arrival: arrival, observer: observer, state: state, meter: TransferMeter(now))
        if let failure = failure ?? (isCalledOff ? isConnected ? .aborted : .disconnected : nil) {
            return act(current!.state.fail(failure, tells: isConnected))
        }
        return [.say(TransferMessage(.agree, arrival.id))]
    }

    /// A step of the file that is arriving, if it is the one with this number.
    mutating func step(
        _ id: UInt32, isFromPeer: Bool = false,
        _ body: (inout ReceivingState) -> ReceivingState.Step
    ) -> [FileAction] {
        guard current?.arrival.id == id else { return [] }
        return act(body(&current!.state), isFromPeer: isFromPeer)
    }

    /// Whether the bytes that come now are this file's.
    func wants(_ id: UInt32) -> Bool { current?.arrival.id == id && current?.state.phase == .receiving }

    /// Bytes of a piece have come. Returns where they belong; nil when they are not wanted any more.
    mutating func bytes(_ count: Int) -> UInt64? { current?.state.bytes(count, now: now) }

    /// Bytes have been written; or could not be.
    mutating func wrote(_ count: Int, _ failure: TransferFailure?, sum: () -> UInt64)
        -> [FileAction]
    {
        guard let state = current?.state, state.phase != .over else { return [] }
        if let failure { return act(current!.state.fail(failure)) }
        let step = current!.state.wrote(count, now: now, sum: sum)
        let progress = current!.meter.look(current!.name, current!.state.written, of: state.size, now: now)
        return (progress.map { [.progress(current!.observer, $0)] } ?? []) + act(step)
    }

    private mutating func act(_ step: ReceivingState.Step, isFromPeer: Bool = false)
        -> [FileAction]
    {
        guard let file = current else { return [] }
        switch step {
        case .wait: return []
        case .keep: return [.keep]
        case .failed(let failure, let tells):
            current = nil
            let error = TransferError(failure, file.name, isFromPeer: isFromPeer)
            return (tells ? [.say(TransferMessage(.refuse, file.arrival.id, failure))] : [])
                + [.discard, .finished(file.observer, .failure(error))] + askNext()
        }
    }

    /// It has its name; or could not get it.
    mutating func kept(_ failure: TransferFailure?, _ sum: UInt64) -> [FileAction] {
        guard let file = current else { return [] }
        current = nil
        let result: TransferResult =
            failure.map { .failure(TransferError($0, file.name)) }
            ?? .success(file.meter.receipt(file.name, file.state.size, sum))
        let word = failure.map { TransferMessage(.refuse, file.arrival.id, $0) }
        return [
            .say(word ?? TransferMessage(.verified, file.arrival.id)), .discard,
            .finished(file.observer, result),
        ]
            + askNext()
    }

    // MARK: The end

    /// Calls off everything, or one.
    mutating func callOff(
        _ failure: TransferFailure, only id: TransferID? = nil, _ tells: Bool = true
    ) -> [FileAction] {
        let isMeant = { (question: Question) in id == nil || id == TransferID(question.id) }
        if let first = questions.first, isMeant(first) { deadline = nil }
        let off = questions.filter(isMeant)
        questions.removeAll(where: isMeant)
        let isIt = { (file: Arrival) in
            id == nil
                || id == (file.question == 0 ? TransferID(file.id, isPeers: true) : TransferID(file.question))
        }
        if let making, isIt(making.arrival) { self.making!.isCalledOff = true }
        var actions: [FileAction] = off.map {
            .finished($0.observer, .failure(TransferError(failure, $0.name.description)))
        }
        if let current, isIt(current.arrival) {
            actions += act(self.current!.state.fail(failure, tells: tells))
        }
        return actions + askNext()
    }

    /// The connection is over.
    mutating func disconnected(_ failure: TransferFailure) -> [FileAction] {
        isConnected = false
        return callOff(failure, false)
    }

    /// Time has passed. (I8.3)
    mutating func tick() -> [FileAction] {
        // The other side sends one file at a time: while one is arriving, it cannot answer.
        if deadline != nil, current != nil || making != nil { deadline = now + limits.answer }
        let (now, id) = (now, current?.arrival.id ?? 0)
        let actions = step(id) { $0.tick(now: now) }
        guard let deadline, now >= deadline, let question = questions.first else { return actions }
        return actions + declined(question.id, .noAnswer, isFromPeer: false)
    }
}
