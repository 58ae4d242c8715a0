import CKernel
import Glibc

extension Socket {
    /// Posts an accept. Without room for first data (`receiveLength` 0) it completes as soon as a client has
    /// connected; with room, when that client's first bytes have come, or its end of stream (0 bytes), or a failure.
    /// It completes with the listener's key.
    ///
    /// One buffer takes everything: first the received bytes, then both addresses, each in an area of
    /// `Address.capacity` bytes. `AcceptBuffer` reads them.
    ///
    /// - Parameters:
    ///   - socket: Receives the connection. It must be fresh: `Socket()`, or reused after a disconnect.
    ///   - buffer: At least `receiveLength + 2 * Address.capacity` bytes; the driver's until the completion.
    /// When the accept is cancelled or fails before a client has come, `socket` is fresh again; otherwise it has a
    /// connection, good or dead, and is to be closed.
    ///
    /// - Throws: EINVAL when this socket does not listen or `socket` is not fresh, EFAULT when the buffer is too
    ///   small, EBADF when the listener is closed, EALREADY when the operation is pending.
    ///
    /// Win32 counterpart: `AcceptEx`.
    public func accept(
        _ operation: Overlapped, _ socket: Socket, into buffer: UnsafeMutableRawBufferPointer,
        receiveLength: Int
    ) throws(SystemError) {
        guard receiveLength >= 0, buffer.count - 2 * Address.capacity >= receiveLength else {
            throw SystemError(EFAULT, attempted: "accept into a buffer without room for two addresses")
        }
        guard socket !== self, socket.claim(for: self) else {
            throw SystemError(EINVAL, attempted: "accept with a socket that is in use")
        }
        do throws(SystemError) {
            let used = UnsafeMutableRawBufferPointer(
                rebasing: buffer[..<(receiveLength + 2 * Address.capacity)])
            try post(operation, .accept, .inward, used, other: socket) {
                state throws(SystemError) in
                guard state.pointee.listening else {
                    throw SystemError(EINVAL, attempted: "accept on a socket that does not listen")
                }
            }
        } catch {
            socket.disclaim()
            throw error
        }
    }
}

extension Socket {
    /// Posts a wish to be told that a client has come for whom no accept was pending. It waits its turn behind the
    /// accepts that were posted before it, and takes nothing: the client stays where it is. It completes once, with
    /// 0 bytes and the listener's key; to be told again, post it again. Accepts that were posted after it do not hold
    /// it back, so it may also tell of a client whom one of those takes: look before you act.
    ///
    /// - Throws: EINVAL when this socket does not listen, EBADF when it is closed, EALREADY when the operation is
    ///   pending.
    ///
    /// Win32 counterpart: `WSAEventSelect` with `FD_ACCEPT`.
    public func noticeShortage(_ operation: Overlapped) throws(SystemError) {
        try post(operation, .notice, .inward) { state throws(SystemError) in
            guard state.pointee.listening else {
                throw SystemError(EINVAL, attempted: "ask a socket that does not listen for a notice")
            }
        }
    }

    /// How many of the accepts that were posted here have their client and wait for its first data.
    public var acceptsAwaitingData: Int { locked { _ in awaitingFirstData.count } }
}

/// Reads the buffer of a completed accept. Win32 counterpart: `GetAcceptExSockaddrs`.
public struct AcceptBuffer {
    private let memory: UnsafeRawBufferPointer
    private let receiveLength: Int

    /// - Parameters:
    ///   - memory: The buffer that the accept was posted with, alive as long as this value is used.
    ///   - receiveLength: The length that it was posted with.
    public init(_ memory: UnsafeRawBufferPointer, receiveLength: Int) {
        self.memory = memory
        self.receiveLength = receiveLength
    }

    /// The address that the client connected to.
    public var local: Address? { address(at: receiveLength) }

    /// The client's own address.
    public var remote: Address? { address(at: receiveLength + Address.capacity) }

    /// The first bytes that the client sent: as many as the completion tells, and no more.
    public func firstData(_ bytes: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: memory[..<min(bytes, receiveLength)])
    }

    private func address(at offset: Int) -> Address? {
        var storage = sockaddr_storage()
        withUnsafeMutableBytes(of: &storage) {
            $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: memory[offset..<offset + Address.capacity]))
        }
        return Address(system: storage)
    }

    /// Writes the local address of a new connection behind the receive area; the client's is there already.
    static func store(_ descriptor: Int32, in memory: UnsafeMutableRawBufferPointer) {
        var local = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        withUnsafeMutablePointer(to: &local) {
            _ = $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        let area = memory.count - 2 * Address.capacity
        withUnsafeBytes(of: local) {
            memory[area..<area + Address.capacity].copyBytes(from: $0[..<Address.capacity])
        }
    }
}

extension Overlapped {
    final func attemptAccept(_ descriptor: Int32) -> Attempt {
        let area = buffer.baseAddress! + receiveArea + Address.capacity
        var peer = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let accepted = withUnsafeMutablePointer(to: &peer) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                ck_accept4(descriptor, $0, &length, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
            }
        }
        // A client that has gone before it was accepted is no failure of the listener.
        if accepted < 0 { return errno == ECONNABORTED ? .more : .failure(errno) }
        withUnsafeBytes(of: peer) { area.copyMemory(from: $0.baseAddress!, byteCount: Address.capacity) }
        return connected(accepted)
    }

    final func prepareAccept(_ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ tag: UInt64)
    {
        // The kernel writes the client's address where it belongs, and its length, which is not needed, into the area
        // of the other address, which is written later.
        let areas = buffer.baseAddress! + receiveArea
        areas.storeBytes(of: UInt32(Address.capacity), as: UInt32.self)
        let length = UInt64(UInt(bitPattern: areas))
        ck_sqe_fill(
            entry, UInt8(IORING_OP_ACCEPT.rawValue), descriptor, length, areas + Address.capacity, 0,
            UInt32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), tag)
    }

    final func concludeAccept(_ answer: Int32) -> Attempt {
        if answer < 0 { return answer == -ECONNABORTED ? .more : .failed(-answer) }
        return connected(answer)
    }

    /// There is a connection. Its descriptor waits in `result` until the lane is locked again.
    private final func connected(_ descriptor: Int32) -> Attempt {
        AcceptBuffer.store(descriptor, in: buffer)
        result = Int(descriptor)
        return .done(bytes: 0, drained: false)
    }

    private final var receiveArea: Int { buffer.count - 2 * Address.capacity }

    /// Whether the connection is only the first half of this accept.
    final var wantsFirstData: Bool { receiveArea > 0 }

    final func attemptFirstData(_ descriptor: Int32) -> Attempt {
        let count = recv(descriptor, buffer.baseAddress, receiveArea, Int32(MSG_DONTWAIT))
        if count < 0 { return .failure(errno) }
        return .done(bytes: count, drained: count > 0 && count < receiveArea)
    }

    final func prepareFirstData(
        _ entry: UnsafeMutablePointer<io_uring_sqe>, _ descriptor: Int32, _ tag: UInt64
    ) {
        ck_sqe_fill(
            entry, UInt8(IORING_OP_RECV.rawValue), descriptor, 0, buffer.baseAddress,
            UInt32(min(receiveArea, Attempt.longestRequest)), 0, tag)
    }

    final func concludeFirstData(_ answer: Int32) -> Attempt {
        answer < 0 ? .failed(-answer) : .done(bytes: Int(answer), drained: false)
    }
}

extension Overlapped {
    /// Looks whether a client waits, and leaves it there.
    final func attemptShortageNotice(_ descriptor: Int32) -> Attempt {
        var wish = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        let count = poll(&wish, 1, 0)
        if count < 0 { return .failure(errno) }
        return count == 0 ? .again : .done(bytes: 0, drained: false)
    }
}
