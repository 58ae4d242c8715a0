import CKernel
import Glibc

/// What came of one step of an operation.
enum Attempt {
    /// Nothing could be done now. Try when the descriptor is ready.
    case again
    /// A step was done and the next may follow at once.
    case more
    /// The operation is complete. `drained` tells that the descriptor gave or took less than it was asked for, so
    /// that a further attempt would find nothing.
    case done(bytes: Int, drained: Bool)
    /// The operation failed with the system's number.
    case failed(Int32)

    /// Bytes that are asked for in one request: some calls take no more than 2 GiB less a page, some refuse more.
    static let longestRequest = 1 << 30

    /// What a failed system call means for an operation that can be repeated.
    static func failure(_ code: Int32) -> Attempt {
        switch code {
        case EAGAIN: return .again
        case EINTR: return .more
        default: return .failed(code)
        }
    }
}

/// An operation, seen by the drivers. Each operation has a file of its own that tells how it is carried out by
/// plain calls, how it is written into a ring, and what the ring's answer means.
extension Overlapped {
    /// One step with plain calls that do not block. Called by the thread that has the lane, without a lock.
    @inline(__always)
    final func attempt(_ descriptor: Int32) -> Attempt {
        switch operation {
        case .receive: return attemptReceive(descriptor)
        case .send: return attemptSend(descriptor)
        case .accept: return phase == 0 ? attemptAccept(descriptor) : attemptFirstData(descriptor)
        case .notice: return attemptShortageNotice(descriptor)
        case .connect: return attemptConnect(descriptor)
        case .disconnect: return phase == 0 ? attemptDisconnect(descriptor) : attemptDrain(descriptor)
        case .read: return attemptRead(descriptor)
        case .write: return attemptWrite(descriptor)
        case .transmit: return attemptTransmit(descriptor)
        case .none: return .failed(EINVAL)
        }
    }

    /// The same step, written into an entry of a ring.
    final func prepare(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32) {
        let tag = UInt64(identity)
        switch operation {
        case .receive: prepareReceive(entry, descriptor, tag)
        case .send: prepareSend(entry, descriptor, tag)
        case .accept where phase == 0: prepareAccept(entry, descriptor, tag)
        case .accept: prepareFirstData(entry, descriptor, tag)
        case .read: prepareRead(entry, descriptor, tag)
        case .write: prepareWrite(entry, descriptor, tag)
        // These are plain calls that wait for the socket to become usable.
        case .connect, .transmit: preparePoll(entry, descriptor, UInt32(POLLOUT), tag)
        case .disconnect, .notice, .none:
            preparePoll(entry, descriptor, UInt32(POLLIN) | EPOLLRDHUP.rawValue, tag)
        }
    }

    /// What a ring's answer means. `isWanted`: neither a cancel nor a close has asked for the operation's end.
    final func conclude(_ answer: Int32, _ descriptor: Int32, isWanted: Bool) -> Attempt {
        // Interrupted, or cancelled though no cancel was asked for: some kernels cancel what a thread posted when it ends,
        // others when the first bytes come after that, and a port must not. The same request is written again.
        if answer == -EINTR || answer == -EAGAIN || (answer == -ECANCELED && isWanted) {
            return .more
        }
        switch operation {
        case .receive: return concludeReceive(answer, descriptor)
        case .send: return concludeSend(answer)
        case .accept where phase == 0: return concludeAccept(answer)
        case .accept: return concludeFirstData(answer)
        case .read: return concludeRead(answer)
        case .write: return concludeWrite(answer)
        case .connect, .transmit, .disconnect, .notice, .none:
            return answer < 0 ? .failed(-answer) : .again
        }
    }

    final func preparePoll(
        _ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ events: UInt32, _ tag: UInt64
    ) {
        ck_sqe_fill(entry, UInt8(IORING_OP_POLL_ADD.rawValue), descriptor, 0, nil, 0, events, tag)
    }

    /// Whether a ring carries out the step itself. Otherwise the step is a plain call, and the ring only tells
    /// when to make it.
    final var isRingOperation: Bool {
        switch operation {
        case .receive, .send, .accept, .read, .write: return true
        case .connect, .disconnect, .transmit, .notice, .none: return false
        }
    }
}
