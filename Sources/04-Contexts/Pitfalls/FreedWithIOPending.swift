import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// A page of memory of its own. When it is freed it becomes untouchable rather than somebody else's: the first late
/// touch is an access violation, every time, instead of a surprise, some time.
struct GuardPage<Contents> {
    let contents: UnsafeMutablePointer<Contents>
    private static var size: Int { sysconf(Int32(_SC_PAGESIZE)) }

    init(_ initial: Contents) throws(SystemError) {
        let page = mmap(nil, Self.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let page, page != MAP_FAILED else { throw SystemError(ENOMEM, attempted: "map a page") }
        contents = page.bindMemory(to: Contents.self, capacity: 1)
        contents.initialize(to: initial)
    }

    /// The page whose contents lie at an address.
    init(at address: UInt) { contents = UnsafeMutablePointer(bitPattern: address)! }

    func free() {
        contents.deinitialize(count: 1)
        mprotect(contents, Self.size, PROT_NONE)
    }
}

/// An operation with a buffer of its own.
final class Request: Overlapped, @unchecked Sendable {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    deinit { memory.deallocate() }

    /// The first bytes of the buffer, as text.
    func text(_ count: Int) -> String { String(decoding: memory[..<count], as: UTF8.self) }
}

/// ⚠︎ Broken on purpose: two receives are pending on every connection, and the first that tells of the end frees the
/// connection's context.
final class BrokenServer: Sendable {
    struct Context {
        let socket: Socket
        var packets = 0
    }

    let address: Address
    private let listener: Socket
    private let port: CompletionPort
    private let freed = Guarded<Set<UInt>>([])

    init(_ driver: DriverKind) throws(SystemError) {
        listener = try Socket.listener(on: .loopback())
        try listener.setBlocking(true)
        address = try listener.localAddress
        port = try CompletionPort.on(driver, concurrency: 1)
    }

    func accept(_ clients: Int) throws(SystemError) {
        for _ in 0..<clients {
            guard let socket = try listener.acceptNow() else { continue }
            let context = try GuardPage(Context(socket: socket))
            // The per-socket context is the completion key, as it should be.
            try port.associate(socket, key: UInt(bitPattern: context.contents))
            for _ in 1...2 {
                let request = Request()
                try? socket.receive(request, into: request.memory)
            }
        }
    }

    func work() {
        while case .some(let packet) = try? port.next() {
            let context = GuardPage<Context>(at: packet.key)
            if freed.locked({ $0.contains(packet.key) }) {
                _ = writeOut("the context of this packet is freed already; \(CrashChild.lastWords)\n")
            }
            context.contents.pointee.packets += 1
            guard packet.errorCode == 0, packet.bytes > 0, let request = packet.operation as? Request else {
                context.contents.pointee.socket.close()
                // The other receive is still on its way back.
                context.free()
                _ = freed.locked { $0.insert(packet.key) }
                continue
            }
            let socket = context.contents.pointee.socket
            _ = try? socket.sendNow(UnsafeRawBufferPointer(rebasing: request.memory[..<packet.bytes]))
            try? socket.receive(request, into: request.memory)
        }
    }

    private func writeOut(_ line: String) -> Int { line.withCString { write(STDOUT_FILENO, $0, strlen($0)) } }
}

/// The same server, with the pending receives counted: fixed by hand.
final class CountingServer: Sendable {
    let contexts = FreeList<CountedContext>(maximumFree: 16) { CountedContext() }
    private let port: CompletionPort
    let announced = Counter()
    let released = Counter()

    init(_ driver: DriverKind) throws(SystemError) { port = try CompletionPort.on(driver, concurrency: 1) }

    func serve(_ pairs: [Pair]) throws(SystemError) {
        for pair in pairs {
            guard let context = contexts.take() else { continue }
            context.renew()
            // The contexts of this list stay where they are, and are alive as long as they are in use.
            try port.associate(pair.server, key: UInt(bitPattern: Unmanaged.passRetained(context).toOpaque()))
            for _ in 1...2 where context.enter() {
                let request = Request()
                do throws(SystemError) {
                    try pair.server.receive(request, into: request.memory)
                } catch {
                    if context.leave() { release(context) }
                }
            }
            if context.leave() { release(context) }
        }
    }

    /// Handles packets until as many contexts are released.
    func work(until count: Int) throws(SystemError) {
        while released.value < count {
            let packet = try port.next()
            let context = Unmanaged<CountedContext>.fromOpaque(UnsafeRawPointer(bitPattern: packet.key)!)
                .takeUnretainedValue()
            if let reason = CloseReason(.receive, bytes: packet.bytes, error: packet.error),
                context.close(reason)
            {
                announced.add()
            }
            if context.leave() { release(context) }
        }
        port.close()
    }

    private func release(_ context: CountedContext) {
        released.add()
        contexts.giveBack(context)
        Unmanaged.passUnretained(context).release()
    }
}

/// The first failed completion frees the connection's context; the next completion touches it.
public enum FreedWithIOPending {
    /// For the demo and the tests. The broken half runs in a child process, which it kills.
    public static let pitfall = Pitfall(
        slug: "freed-with-io-pending",
        title: "the first failed completion frees the context, and the next one touches it",
        broken: { driver in
            let ending = try CrashChild.run(driver, clients: 1)
            let isSignal = ending.status == 128 + SIGSEGV
            return Observation(
                happened: CrashChild.diedOfTouch(ending),
                lines: ending.output.split(separator: "\n").map(String.init) + [
                    isSignal
                        ? "the process was ended by signal 11, SIGSEGV: an access violation"
                        : "the process ended with status \(ending.status)"
                ])
        },
        fixed: { driver in
            let clients = 8
            var pairs: [Pair] = []
            for _ in 0..<clients { pairs.append(try Pair()) }
            let counting = try CountingServer(driver)
            try counting.serve(pairs)
            for pair in pairs { try pair.client.abort() }
            try counting.work(until: clients)

            var options = ContextServer.Options()
            options.port.driver = driver
            let server = try ContextServer(options: options)
            let report = LeavingClients(
                to: server.address, count: 100,
                ways: LeavingClients.Way.allCases.filter { $0 != .closedByServer }
            ).run()
            let isClean = server.stop()
            let ledger = server.table.counters
            let isCounted =
                counting.announced.value == clients && counting.released.value == clients
                && counting.contexts.counters.inUse == 0
            return Observation(
                happened: !isCounted || !isClean || ledger.released != ledger.opened
                    || report.connected != ledger.opened,
                lines: [
                    "counted by hand: \(clients) clients left with two receives pending each; "
                        + "\(counting.announced.value) ends announced, \(counting.released.value) released",
                    "counted by ARC: \(ledger.opened) connections, \(ledger.announced) ends announced, "
                        + "\(ledger.released) released, \(ledger.alive) alive",
                ])
        })

    /// Runs the broken server in this very process, with clients that leave. It does not survive that.
    public static func crash(_ driver: DriverKind, clients: Int = 1) throws {
        let server = try BrokenServer(driver)
        let address = server.address
        let visitors = startThread("clients") {
            _ = LeavingClients(
                to: address, count: clients, threads: min(4, clients), together: (clients + 3) / 4,
                ways: [.silently, .silentlyWithReset, .afterAnswer]
            ).run()
        }
        try server.accept(clients)
        server.work()
        visitors.join()
    }
}
