#if os(Windows)
    import WinSDK

    /// Gives every client its own bytes back: one port, two workers, four accepts that wait.
    final class EchoServer: @unchecked Sendable {
        static let accepts = 4
        static let workers = 2
        /// What AcceptEx needs for each of the two addresses.
        private static let addressRoom = DWORD(MemoryLayout<sockaddr_in>.size + 16)

        let tcpPort: UInt16
        private let listener: SOCKET
        private let port: HANDLE
        private let functions: ExtensionFunctions
        private var threads: [HANDLE?] = []
        private let lock = UnsafeMutablePointer<SRWLOCK>.allocate(capacity: 1)

        // MARK: What the lock guards

        private var connections: [SOCKET: Connection] = [:]
        private var waitingAccepts = 0
        /// Operations that are pending, or whose packets are being handled.
        private var underWay = 0
        private var isStopping = false
        private(set) var totals = Totals()

        struct Totals {
            var (clients, bytes) = (0, 0)
            /// How connections have ended: by Windows' number; 0 for a client that said that it was done.
            var ends: [DWORD: Int] = [:]
        }

        init() throws(CallFailed) {
            lock.initialize(to: SRWLOCK())
            listener = WSASocketW(AF_INET, SOCK_STREAM, 0, nil, 0, DWORD(WSA_FLAG_OVERLAPPED))
            try require(listener != INVALID_SOCKET, "WSASocket")
            // SO_EXCLUSIVEADDRUSE, which is the complement: nobody else may take the address.
            try listener.set(~SO_REUSEADDR, to: Int32(1))
            var address = sockaddr_in()
            address.sin_family = .init(AF_INET)
            address.sin_addr.S_un.S_addr = ULONG(0x7f00_0001).bigEndian
            var size = Int32(MemoryLayout<sockaddr_in>.size)
            let socket = listener
            let isBound = withUnsafeMutableBytes(of: &address) { bytes in
                let name = bytes.assumingMemoryBound(to: sockaddr.self).baseAddress
                return bind(socket, name, size) == 0 && getsockname(socket, name, &size) == 0
            }
            try require(isBound, "bind")
            tcpPort = address.sin_port.bigEndian
            try require(listen(listener, SOMAXCONN) == 0, "listen")
            guard let port = CreateIoCompletionPort(listener.handle, nil, 0, 0) else {
                throw CallFailed(call: "CreateIoCompletionPort")
            }
            self.port = port
            functions = try ExtensionFunctions(of: listener)
            try locked { () throws(CallFailed) in try replenish() }
            for _ in 0..<EchoServer.workers { threads.append(startWorker()) }
        }

        private func startWorker() -> HANDLE? {
            // The thread needs no reference of its own: `stop` waits for it.
            let server = Unmanaged.passUnretained(self).toOpaque()
            let begin: LPTHREAD_START_ROUTINE = { server in
                Unmanaged<EchoServer>.fromOpaque(server!).takeUnretainedValue().work()
                return 0
            }
            return CreateThread(nil, 0, begin, server, 0, nil)
        }

        // MARK: The workers

        private func work() {
            while true {
                var (bytes, key, overlapped) = (DWORD(0), ULONG_PTR(0), LPOVERLAPPED?.none)
                let succeeded = GetQueuedCompletionStatus(port, &bytes, &key, &overlapped, INFINITE)
                let code = succeeded ? 0 : GetLastError()
                // No operation: the word to go, which `stop` has posted for each worker.
                guard let overlapped else { return }
                let connection = Connection.taken(from: overlapped)
                // This server does nothing but give back. One that computes would do so here, without the lock.
                locked {
                    handle(connection, bytes, code)
                    underWay -= 1
                    if isStopping, underWay == 0 { dismissWorkers() }
                }
            }
        }

        /// Under the lock: what a packet means, and what is posted next.
        private func handle(_ connection: Connection, _ bytes: DWORD, _ code: DWORD) {
            let step = connection.step
            if step == .accept { waitingAccepts -= 1 }
            do throws(CallFailed) {
                guard !isStopping else { return leave(connection, code) }
                if code != 0 {
                    // An operation failed; the port and the listener are as well as before.
                    leave(connection, code)
                } else {
                    switch step {
                    case .accept: try welcome(connection)
                    case .receive where bytes == 0: leave(connection, 0)
                    case .receive: try post { () throws(CallFailed) in try connection.send(bytes) }
                    case .send:
                        totals.bytes += Int(bytes)
                        try post { () throws(CallFailed) in try connection.receive() }
                    }
                }
                try replenish()
            } catch {
                leave(connection, error.code)
            }
        }

        /// Under the lock: a client has come, and its socket is told so.
        private func welcome(_ connection: Connection) throws(CallFailed) {
            let socket = connection.socket
            connections[socket] = connection
            totals.clients += 1
            // Till then it can send and receive, and nothing else: no address, no option, no shutdown.
            try socket.set(SO_UPDATE_ACCEPT_CONTEXT, to: listener)
            try socket.set(TCP_NODELAY, at: Int32(IPPROTO_TCP.rawValue), to: Int32(1))
            try require(CreateIoCompletionPort(socket.handle, port, 0, 0) != nil, "CreateIoCompletionPort")
            try post { () throws(CallFailed) in try connection.receive() }
        }

        /// Under the lock: nothing of it is pending. The last reference goes with the caller's, and then the socket is closed.
        private func leave(_ connection: Connection, _ code: DWORD) {
            guard connections.removeValue(forKey: connection.socket) != nil else { return }
            totals.ends[code, default: 0] += 1
        }

        // MARK: Posting

        /// Under the lock: what is posted is counted. While it is, nobody can say that it is time to stop.
        private func post(_ start: () throws(CallFailed) -> Void) throws(CallFailed) {
            try start()
            underWay += 1
        }

        /// Under the lock: keeps accepts waiting. One that cannot be posted is tried again after the next packet.
        private func replenish() throws(CallFailed) {
            while !isStopping, waitingAccepts < EchoServer.accepts {
                let next = try Connection()
                var received: DWORD = 0
                try post { () throws(CallFailed) in
                    try next.post(.accept, "AcceptEx") {
                        // No first data: a client that says nothing holds no accept.
                        functions.accept(
                            listener, next.socket, next.buffer.baseAddress, 0, EchoServer.addressRoom,
                            EchoServer.addressRoom, &received, $0
                        ).boolValue
                    }
                }
                waitingAccepts += 1
            }
        }

        private func locked<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure)
            -> Result
        {
            AcquireSRWLockExclusive(lock)
            defer { ReleaseSRWLockExclusive(lock) }
            return try body()
        }

        // MARK: The end

        /// Ends all connections, and returns when the last packet has been handled and both workers are gone.
        func stop() {
            locked {
                isStopping = true
                // It only asks. Each operation comes back with its packet, one way or another.
                CancelIoEx(listener.handle, nil)
                for socket in connections.keys { CancelIoEx(socket.handle, nil) }
                if underWay == 0 { dismissWorkers() }
            }
            for thread in threads {
                WaitForSingleObject(thread, INFINITE)
                CloseHandle(thread)
            }
            // Nobody waits for the port any more, and nobody can be inside a call with these.
            closesocket(listener)
            CloseHandle(port)
        }

        private func dismissWorkers() {
            for _ in 0..<EchoServer.workers { PostQueuedCompletionStatus(port, 0, 0, nil) }
        }
    }

    /// Functions that no library exports: a socket's provider gives them out, by their number.
    struct ExtensionFunctions {
        let accept: LPFN_ACCEPTEX

        init(of socket: SOCKET) throws(CallFailed) {
            // WSAID_ACCEPTEX, and SIO_GET_EXTENSION_FUNCTION_POINTER: macros that Swift does not import.
            var id = GUID(
                Data1: 0xb536_7df1, Data2: 0xcbac, Data3: 0x11cf,
                Data4: (0x95, 0xca, 0x00, 0x80, 0x5f, 0x48, 0xa1, 0x92))
            var function: LPFN_ACCEPTEX?
            var bytes: DWORD = 0
            let result = WSAIoctl(
                socket, 0xc800_0006, &id, DWORD(MemoryLayout<GUID>.size), &function,
                DWORD(MemoryLayout<LPFN_ACCEPTEX?>.size), &bytes, nil, nil)
            guard result == 0, let function else { throw CallFailed(call: "WSAIoctl") }
            accept = function
        }
    }

    /// Serves until the reader presses return.
    func serveUntilReturn() {
        var data = WSADATA()
        // Before any other call of Winsock, in every program.
        guard WSAStartup(0x0202, &data) == 0 else { return print("Winsock does not start") }
        do throws(CallFailed) {
            let server = try EchoServer()
            print("127.0.0.1:\(server.tcpPort) gives back what it gets, until you press return")
            fflush(nil)
            _ = getchar()
            server.stop()
            print("stopped")
            let totals = server.totals
            print("\(totals.clients) clients, \(totals.bytes) bytes given back")
            for (code, count) in totals.ends { print("\(count) ended with \(code)") }
        } catch {
            print("\(error.call) failed with \(error.code)")
        }
        WSACleanup()
    }
#endif
