#if os(Windows)
    import WinSDK

    /// A call that failed, and Windows' number for why. To be made before anything else is called: the number is the thread's.
    struct CallFailed: Error {
        let call: String
        let code = GetLastError()
    }

    func require(_ succeeded: Bool, _ call: String) throws(CallFailed) {
        if !succeeded { throw CallFailed(call: call) }
    }

    /// A client's socket, and the one operation that goes round on it: accept, receive, send, receive, send …
    ///
    /// While the operation is pending, Windows writes into this object's memory, so it has a reference to the object. The
    /// packet brings it back. With the last reference the socket is closed: when no call can be inside it any more.
    final class Connection: @unchecked Sendable {
        /// What is pending.
        enum Step { case accept, receive, send }

        /// What Windows is given the address of. `OVERLAPPED` comes first: so its address is that of the whole.
        private struct Context {
            var overlapped = OVERLAPPED()
            let owner: Unmanaged<Connection>
        }

        let socket: SOCKET
        let buffer = UnsafeMutableBufferPointer<CChar>.allocate(capacity: 4_096)
        private(set) var step = Step.accept
        private let context = UnsafeMutablePointer<Context>.allocate(capacity: 1)

        init() throws(CallFailed) {
            socket = WSASocketW(AF_INET, SOCK_STREAM, 0, nil, 0, DWORD(WSA_FLAG_OVERLAPPED))
            try require(socket != INVALID_SOCKET, "WSASocket")
        }

        deinit {
            if socket != INVALID_SOCKET { closesocket(socket) }
            buffer.deallocate()
            context.deallocate()
        }

        /// Posts an operation. It may be pending, or complete already: a packet comes in both cases, and it is handled there.
        /// When the post has failed none comes, and the reference is taken back.
        func post(_ step: Step, _ call: String, _ start: (LPOVERLAPPED) -> Bool) throws(CallFailed) {
            self.step = step
            // Cleared each time: what the last operation has left there is no business of the next.
            context.initialize(to: Context(owner: .passRetained(self)))
            let overlapped = UnsafeMutableRawPointer(context).assumingMemoryBound(to: OVERLAPPED.self)
            if start(overlapped) { return }
            let failure = CallFailed(call: call)
            if failure.code == DWORD(ERROR_IO_PENDING) { return }
            context.pointee.owner.release()
            throw failure
        }

        /// Whose operation it was, with the reference that Windows had.
        static func taken(from overlapped: LPOVERLAPPED) -> Connection {
            UnsafeMutableRawPointer(overlapped).assumingMemoryBound(to: Context.self).pointee.owner
                .takeRetainedValue()
        }

        func receive() throws(CallFailed) {
            var room = WSABUF(len: ULONG(buffer.count), buf: buffer.baseAddress)
            var flags: DWORD = 0
            try post(.receive, "WSARecv") { WSARecv(socket, &room, 1, nil, &flags, $0, nil) == 0 }
        }

        func send(_ count: DWORD) throws(CallFailed) {
            var bytes = WSABUF(len: count, buf: buffer.baseAddress)
            try post(.send, "WSASend") { WSASend(socket, &bytes, 1, nil, 0, $0, nil) == 0 }
        }
    }

    extension SOCKET {
        /// For the calls that take any handle.
        var handle: HANDLE { HANDLE(bitPattern: UInt(self))! }

        /// Sets an option.
        func set<Value>(_ option: Int32, at level: Int32 = SOL_SOCKET, to value: Value) throws(CallFailed) {
            let result = withUnsafeBytes(of: value) {
                setsockopt(
                    self, level, option, $0.assumingMemoryBound(to: CChar.self).baseAddress, Int32($0.count))
            }
            try require(result == 0, "setsockopt")
        }
    }
#endif
