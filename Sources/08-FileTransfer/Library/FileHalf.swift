/// A file that is to go across, as one side knows it: one to send, one that it has asked for, or one that arrives.
struct FileRequest: Sendable {
    /// Its number on the wire, which its sender has given it; of a question, that of the question.
    let id: UInt32
    /// What the program calls it.
    let transfer: TransferID
    let name: SafeName
    /// Where it is; or the folder in which it is to arrive.
    let path: String
    /// The other side's question that it answers; 0 when there is none.
    var question: UInt32 = 0
    let observer: TransferObserver

    /// It has come to nothing.
    func failed(_ failure: TransferFailure, isFromPeer: Bool = false) -> FileAction {
        .finished(observer, .failure(TransferError(failure, name.description, isFromPeer: isFromPeer)))
    }
}

/// The file that is under way in one direction.
struct FileUnderWay<Handle> {
    let request: FileRequest
    var state: TransferState
    /// Nil while it is being made.
    var file: Handle?
    /// When it was announced, in nanoseconds, and when its progress was told last.
    let start: UInt64
    var told: UInt64 = 0

    /// So many bytes of it are through: to be told every tenth of a second, and at the end.
    mutating func progress(_ bytes: UInt64, now: UInt64) -> [FileAction] {
        guard now - told >= 100_000_000 || bytes == state.size else { return [] }
        told = now
        let rate = Double(bytes) * 1e9 / Double(max(1, now - start))
        let progress = TransferProgress(
            name: request.name.description, isSending: state.pieceLimit > 0, bytes: Int(bytes),
            total: Int(state.size), rate: rate)
        return [.progress(request.observer, progress)]
    }

    /// It is there, whole.
    func finished(_ sum: UInt64, now: UInt64) -> FileAction {
        let receipt = TransferReceipt(
            name: request.name.description, bytes: Int(state.size), checksum: sum,
            duration: .nanoseconds(Int64(now - start)))
        return .finished(request.observer, .success(receipt))
    }
}

/// One direction of a connection: what waits in a line, and the file that is under way. A value that has no lock and no
/// socket: it says what is to be done next, and a `FileTransfer` does it. (I8.3)
protocol FileHalf {
    associatedtype Handle
    var service: FileService { get }
    /// Files to be sent, or questions to be asked.
    var waiting: [FileRequest] { get set }
    var current: FileUnderWay<Handle>? { get set }
    var isConnected: Bool { get set }

    /// Begins with the first that waits, if it is its turn.
    mutating func start() -> [FileAction]
    /// What a step of the file under way comes to.
    mutating func act(_ step: TransferState.Step, isFromPeer: Bool) -> [FileAction]
}

extension FileHalf {
    /// Puts a file or a question behind those that wait; nil when there are too many.
    mutating func add(_ request: FileRequest) -> [FileAction]? {
        if waiting.count >= service.options.maximumWaitingFiles { return nil }
        waiting.append(request)
        return start()
    }

    /// The connection stands.
    mutating func connected() -> [FileAction] {
        isConnected = true
        return start()
    }

    /// What was not begun comes to nothing.
    func refuse(_ request: FileRequest, _ failure: TransferFailure, tells: Bool = true) -> [FileAction] {
        let isAnswer = tells && request.question != 0
        return (isAnswer ? [.say(TransferMessage(.decline, request.question, failure))] : [])
            + [request.failed(failure)]
    }

    /// A step of the file that is under way; if a number is given, of no other: an answer to another comes too late.
    mutating func step(
        _ id: UInt32? = nil, isFromPeer: Bool = false,
        _ body: (inout TransferState) -> TransferState.Step
    ) -> [FileAction] {
        guard let number = current?.request.id, id == nil || id == number else { return [] }
        return act(body(&current!.state), isFromPeer: isFromPeer)
    }

    /// Calls off everything, or one.
    mutating func callOff(
        _ failure: TransferFailure, only id: TransferID? = nil, tells: Bool = true
    ) -> [FileAction] {
        let isMeant = { (request: FileRequest) in id == nil || id == request.transfer }
        let off = waiting.filter(isMeant)
        waiting.removeAll(where: isMeant)
        var actions = off.flatMap { refuse($0, failure, tells: tells) }
        if let current, isMeant(current.request) {
            actions += step { $0.fail(failure, tells: tells) }
        }
        return actions + start()
    }
}
