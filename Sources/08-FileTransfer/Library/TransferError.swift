import Glibc
import Kernel

/// Why a file did not arrive. Its place in this list is the number that crosses the wire, so that both sides say the
/// same. (I8.6)
public enum TransferFailure: String, Error, Hashable, Sendable, CaseIterable {
    /// The name could lead out of the folder, or is none.
    case unsafeName = "the name could lead out of the folder, or is none"
    /// There is a file of that name, and it is not to be replaced.
    case exists = "there is a file of that name already"
    /// Nothing of that name.
    case notFound = "there is no such file"
    /// Another program has the file for itself.
    case inUse = "the file is in use elsewhere"
    /// Larger than the receiver permits, or than any file can be.
    case tooLarge = "it is too large for the receiver"
    /// The receiver's disk is full.
    case diskFull = "the receiver's disk is full"
    /// The receiver cannot write there.
    case cannotWrite = "the receiver cannot write into its folder"
    /// The sender cannot read the file.
    case cannotRead = "the sender cannot read the file"
    /// More or fewer bytes than were announced, or bytes for another place.
    case sizeDiffers = "other bytes came than were announced"
    /// The bytes that arrived are not the bytes that were read.
    case checksumDiffers = "what arrived is not what was sent"
    /// The file became shorter or longer while it was sent.
    case changed = "the file changed while it was sent"
    /// The other side did not answer in time.
    case noAnswer = "no answer in time"
    /// No bytes moved for too long.
    case stalled = "no bytes moved for too long"
    /// One of the two sides called it off.
    case aborted = "called off"
    /// The other side takes or gives no files, or not this one.
    case declined = "not wanted"
    /// A file is under way, and messages are refused meanwhile; or too much waits already.
    case busy = "a file is under way, or too much waits already"
    /// The connection is over.
    case disconnected = "the connection is over"
    /// The other side said something that makes no sense here.
    case nonsense = "the other side does not keep to the exchange"
    /// The receiver has less room for one address than this file and those that are arriving from there already take.
    case overShare = "it is more than one address may take of the receiver's room"
    /// Fewer bytes a second than is waited for, over the whole of the transfer.
    case tooSlow = "slower than is waited for"
    /// Not a file whose size says how many bytes it has.
    case notAFile = "it is no file that says how long it is"

    /// The number on the wire.
    public var code: UInt32 { UInt32(TransferFailure.allCases.firstIndex(of: self)!) }

    /// The failure behind a number. A newer program may know more of them than this one.
    public init(code: UInt32) {
        self =
            TransferFailure.allCases.indices.contains(Int(code))
            ? TransferFailure.allCases[Int(code)] : .declined
    }

    /// What an error of the system means for a file that is being written, or else read.
    init(_ error: SystemError, writing: Bool) {
        self =
            switch error.code {
            case ENOSPC, EDQUOT: .diskFull
            // A limit on the size of files stops a write as a full disk does, on this side of it.
            case EFBIG where writing: .diskFull
            case EEXIST: .exists
            case ENOENT where !writing: .notFound
            case EWOULDBLOCK, ETXTBSY, EBUSY: .inUse
            case SystemError.endOfFile: .changed
            default: writing ? .cannotWrite : .cannotRead
            }
    }
}

/// A transfer that came to nothing: which file, why, and which side found out.
public struct TransferError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Why.
    public let failure: TransferFailure
    /// Which file, by its name on the wire.
    public let name: String
    /// Whether the other side said so.
    public let isFromPeer: Bool

    /// An error about a file.
    public init(_ failure: TransferFailure, _ name: String, isFromPeer: Bool = false) {
        self.failure = failure
        self.name = name
        self.isFromPeer = isFromPeer
    }

    /// One line.
    public var description: String {
        "\(name): \(failure.rawValue)\(isFromPeer ? " (says the other side)" : "")"
    }
}
