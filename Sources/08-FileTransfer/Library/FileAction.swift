/// What is to be done next for a file. The two halves decide it, under the lock of a `FileTransfer`, which does it.
enum FileAction {
    // At once: so what is decided first is sent first. (I8.2)

    /// Say this to the other side.
    case say(TransferMessage)
    /// Hand this part of the file to the system, behind its head.
    case piece(offset: UInt64, count: Int)
    /// Read this part of it, and sum it up.
    case sum(offset: UInt64, count: Int)

    // When the lock is free again: what may wait for the disk, and what calls the program.

    /// Open the file that is sent next.
    case open(FileRequest)
    /// Close the one that was sent.
    case release(OutgoingFile)
    /// Make the file that is to come.
    case make(FileRequest, size: UInt64)
    /// Give it its name.
    case keep(IncomingFile)
    /// Throw it away.
    case discard(IncomingFile)
    /// Tell how far one is.
    case progress(TransferObserver, TransferProgress)
    /// Tell how one has ended.
    case finished(TransferObserver, TransferResult)
    /// End the connection: nothing can be said on it any more.
    case close
}

/// What to call off.
public enum CallOff: Sendable, Hashable {
    /// Everything that is under way or waits, in both directions.
    case all
    /// What this side sends, and has been asked for.
    case sending
    /// What arrives here, and what this side has asked for.
    case receiving
    /// This one.
    case file(TransferID)
}

/// The name of a transfer on its connection. Each side numbers what it sends and asks for.
public struct TransferID: Sendable, Hashable {
    /// The number.
    public let number: UInt32
    /// Whether it is one of the other side's: a file that comes unasked.
    public let isPeers: Bool

    init(_ number: UInt32, isPeers: Bool = false) { (self.number, self.isPeers) = (number, isPeers) }
}
