import AsyncEvents
import Contexts
import Framing
import Glibc
import Kernel
import Reordering

/// Carries files beside a program's messages: in each direction one file at a time, and both directions at once. It is the
/// connection's handler, and has the program's own inside.
///
/// One lock guards both halves. It is held while a step is decided and while what follows is posted, so what is decided
/// first is sent first. It is not held while files are opened, named or removed, nor while the program is called. (I8.2)
/// Any thread may call it.
public final class FileTransfer: FrameHandler, @unchecked Sendable {
    /// What it has in common with others.
    public let service: FileService
    let lock = Lock()

    // MARK: What the lock guards

    var sender: FileSender
    var receiver: FileReceiver
    var link: FramedConnection<LengthPrefixed>?
    var hasClosed = false
    var hasEnded = false
    var lastID: UInt32 = 0
    /// What could not be sent yet, in its order. Nothing is read while that is much.
    var outbox = CircularQueue<TransferMessage>(capacity: 1)
    var isHoldingBack = false
    var keepsPort = false
    var inFlight = 0
    var inner: (any FrameHandler<LengthPrefixed>)?

    // MARK: What belongs to the handler's calls, which come one at a time

    /// Raw bytes that are still to come of a piece, and whose they are; nil when they are not wanted any more.
    var rawBytesLeft = 0
    var pieceOwner: IncomingFile?

    /// Messages about files that are on their way at a time. The others wait: a peer that does not read fills no more.
    static let mostInFlight = 16
    /// Messages that may wait before nothing more is read. More than a file each way needs, and than those that may be asked for
    /// at a time: if it were the first, two sides that have no room for it would both stop to read, for good. (I8.8)
    static let mostWaiting = 128
    static let messageToken = -1

    /// A handler for one connection.
    ///
    /// - Parameter inner: Gets the program's messages, and everything else that a handler gets. Without one, messages are
    ///   thrown away.
    public init(_ service: FileService, around inner: (any FrameHandler<LengthPrefixed>)? = nil) {
        self.service = service
        self.inner = inner
        sender = FileSender(service)
        receiver = FileReceiver(service)
    }

    /// The program's messages have this in front; see ``TransferMessage``.
    public var messageTag: UInt8? { TransferMessage.programTag }

    /// The program's handler inside; nil when the connection is over.
    public var handler: (any FrameHandler<LengthPrefixed>)? { lock.locked { inner } }

    /// The connection; nil before it stands and when it is over.
    public var connection: FramedConnection<LengthPrefixed>? { lock.locked { link } }

    /// Whether the connection is over.
    public var isOver: Bool { lock.locked { hasClosed } }

    // MARK: For the program

    /// Sends a file. It takes its turn behind those that this connection has to send already: one at a time, whatever
    /// their sizes. (I8.1) It may be called before the connection stands.
    ///
    /// - Parameters:
    ///   - path: Opened when its turn has come.
    ///   - name: What it will be called; nil for the last step of the path.
    /// - Throws: `unsafeName`; `busy` when too many wait; `disconnected`. Then the observer hears nothing.
    @discardableResult
    public func send(
        file path: String, as name: String? = nil, _ observer: TransferObserver = TransferObserver()
    ) throws(TransferError) -> TransferID {
        guard let safe = name.map({ SafeName($0) }) ?? SafeName(ofPath: path) else {
            throw TransferError(.unsafeName, readableName((name ?? path).utf8))
        }
        return try begin(safe, at: path, observer) { sender.add($0) }
    }

    /// Asks the other side for a file.
    ///
    /// - Parameter folder: Where it is to arrive; nil for the folder of the options.
    /// - Throws: `unsafeName`; `busy` when too many questions are open; `declined` without a folder; `disconnected`.
    ///   Then the observer hears nothing.
    @discardableResult
    public func ask(
        for name: String, into folder: String? = nil, _ observer: TransferObserver = TransferObserver()
    ) throws(TransferError) -> TransferID {
        guard let safe = SafeName(name) else { throw TransferError(.unsafeName, readableName(name.utf8)) }
        guard let folder = folder ?? service.options.folder, !folder.isEmpty else {
            throw TransferError(.declined, name)
        }
        return try begin(safe, at: folder, observer) { receiver.add($0) }
    }

    private func begin(
        _ name: SafeName, at path: String, _ observer: TransferObserver,
        _ add: (FileRequest) -> [FileAction]?
    ) throws(TransferError) -> TransferID {
        var begun: Result<TransferID, TransferFailure> = .failure(.disconnected)
        act {
            if hasClosed { return [] }
            let id = TransferID(nextID())
            let request = FileRequest(
                id: id.number, transfer: id, name: name, path: path, observer: observer)
            let actions = add(request)
            begun = actions == nil ? .failure(.busy) : .success(id)
            return actions ?? []
        }
        return try begun.mapError { TransferError($0, name.description) }.get()
    }

    /// Under the lock: a number that no transfer of this side has. 0 is none.
    func nextID() -> UInt32 {
        lastID = lastID == .max ? 1 : lastID + 1
        return lastID
    }

    /// Calls off what is under way or waits. The connection goes on; each observer hears `aborted`. A piece that is on its
    /// way is sent to its end, and thrown away over there.
    public func callOff(_ what: CallOff = .all) {
        act {
            switch what {
            case .all: sender.callOff(.aborted) + receiver.callOff(.aborted)
            case .sending: sender.callOff(.aborted)
            case .receiving: receiver.callOff(.aborted)
            case .file(let id): sender.callOff(.aborted, only: id) + receiver.callOff(.aborted, only: id)
            }
        }
    }
}

/// For a thread that has time to wait. The limits of the options bound each wait.
extension FileTransfer {
    /// Sends a file and waits until it is there, whole.
    @discardableResult
    public func sendAndWait(
        _ path: String, as name: String? = nil,
        progress: @escaping @Sendable (TransferProgress) -> Void = { _ in }
    ) throws(TransferError) -> TransferReceipt {
        try wait(progress) { observer throws(TransferError) in try send(file: path, as: name, observer) }
    }

    /// Fetches a file and waits until it is here, whole.
    @discardableResult
    public func fetch(
        _ name: String, into folder: String? = nil,
        progress: @escaping @Sendable (TransferProgress) -> Void = { _ in }
    ) throws(TransferError) -> TransferReceipt {
        try wait(progress) { observer throws(TransferError) in try ask(for: name, into: folder, observer) }
    }

    private func wait(
        _ progress: @escaping @Sendable (TransferProgress) -> Void,
        _ begin: (TransferObserver) throws(TransferError) -> TransferID
    ) throws(TransferError) -> TransferReceipt {
        let (result, isOver) = (Guarded<TransferResult?>(nil), Event(.manual))
        _ = try begin(
            TransferObserver(progress: progress) { outcome in
                result.locked { $0 = outcome }
                isOver.set()
            })
        _ = isOver.wait(until: .never)
        return try result.locked { $0! }.get()
    }
}
