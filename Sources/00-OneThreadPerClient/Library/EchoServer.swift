import Kernel
import Synchronization

/// What the five servers of this chapter have in common: whatever a client sends comes back to it.
///
/// They differ in one thing only: which call waits for the bytes, and how.
public class EchoServer: @unchecked Sendable {
    /// Where the server listens. The system has chosen the port if 0 was asked for.
    public final let address: Address
    /// What has happened so far: a copy.
    public final var counters: Counters { ledger.counters }

    final let listener: Socket
    final let limits: Limits
    final let ledger = Ledger()
    final let isStopping = Atomic<Bool>(false)
    private final var thread: Thread?

    /// - Throws: EADDRINUSE and the like from listening, EMFILE when no descriptor is left.
    init(listeningOn address: Address, _ limits: Limits, backlog: Int = 4096) throws(SystemError) {
        self.limits = limits
        listener = try Socket.listener(on: address, backlog: backlog)
        self.address = try listener.localAddress
    }

    /// Starts the thread that calls `run`. It keeps the server until it is stopped.
    final func start(_ name: String) throws(SystemError) {
        thread = try Thread(name) { self.run() }
    }

    /// What the server's first thread does until the server stops.
    func run() {}

    /// An accept has failed: most often no descriptor is left. An interrupted listener is no failure.
    final func noteFailedAccept() {
        if !isStopping.load(ordering: .relaxed) { ledger.note { $0.failedAccepts += 1 } }
    }

    /// Where threads wait for a stop. Guards what several threads of a server share.
    final let monitor = Monitor()

    /// For a thread that blocks: an accept has failed, so another would fail, too. Waits for a moment or for the stop.
    final func pauseAccepting() {
        noteFailedAccept()
        monitor.locked {
            if !isStopping.load(ordering: .relaxed) { monitor.wait(until: .after(limits.acceptPause)) }
        }
    }

    /// Makes `run` return: it may be waiting. `isStopping` is set.
    func wake() {
        listener.interrupt()
        monitor.locked { monitor.broadcast() }
    }

    /// Ends every thread and closes everything, and returns when that is done; no client can delay it. (I0.7)
    /// To be called once.
    public func stop() {
        isStopping.store(true, ordering: .releasing)
        wake()
        thread?.join()
        listener.close()
    }
}

/// What a server will not go beyond.
public struct Limits: Sendable {
    /// Clients at once. One too many is accepted and at once reset, so that it learns why.
    public var clients = 4096
    /// Bytes taken with one receive.
    public var receiveSize = 4096
    /// How long a server accepts no client after the system had nothing left to accept with.
    public var acceptPause = Duration.milliseconds(50)

    /// The defaults.
    public init() {}
}

/// What a server has counted.
public struct Counters: Sendable, Equatable {
    /// Clients that are being served now.
    public var present = 0
    /// Clients that were accepted to be served.
    public var accepted = 0
    /// Clients that were sent away since there were too many, or since the system had no thread for them.
    public var refused = 0
    /// Clients whose connection ended with an error.
    public var failed = 0
    /// Accepts that failed.
    public var failedAccepts = 0
    /// Bytes that were sent back.
    public var bytesEchoed = 0
    /// Receives that were tried and found nothing.
    public var emptyReceives = 0
}

/// The servers, by the word that chooses one.
public enum ServerKind: String, CaseIterable, Sendable {
    /// A thread for each client.
    case thread
    /// One thread that serves one client after the other.
    case turn
    /// One thread that asks every client all the time.
    case polling
    /// One thread that is told which socket is ready.
    case readiness
    /// One thread that is told what is done.
    case completion

    /// Starts a server of this kind. Port 0 takes any free one; only `completion` needs a driver.
    ///
    /// - Throws: EADDRINUSE and the like from listening, EMFILE, EAGAIN when there is no thread.
    public func start(
        on address: Address = .loopback(), limits: Limits = Limits(), driver: DriverKind = .standard
    ) throws(SystemError) -> EchoServer {
        switch self {
        case .thread: try ThreadServer(on: address, limits: limits)
        case .turn: try TurnServer(on: address, limits: limits)
        case .polling: try PollingServer(on: address, limits: limits)
        case .readiness: try ReadinessServer(on: address, limits: limits)
        case .completion: try CompletionServer(on: address, limits: limits, driver: driver)
        }
    }
}

/// The counters of a running server, for any thread.
final class Ledger: Sendable {
    private let lock = Lock()
    private nonisolated(unsafe) var guarded = Counters()

    var counters: Counters { lock.locked { guarded } }

    func note(_ change: (inout Counters) -> Void) { lock.locked { change(&guarded) } }

    /// Takes a client in, if there is room for one more.
    func admit(limit: Int) -> Bool {
        lock.locked {
            guard guarded.present < limit else {
                guarded.refused += 1
                return false
            }
            guarded.present += 1
            guarded.accepted += 1
            return true
        }
    }

    /// A client was taken in, and then there was no thread for it.
    func dismissUnserved() {
        note { ($0.present, $0.accepted, $0.refused) = ($0.present - 1, $0.accepted - 1, $0.refused + 1) }
    }

    /// A client has gone.
    func dismiss(failed: Bool) {
        lock.locked {
            guarded.present -= 1
            if failed { guarded.failed += 1 }
        }
    }
}

extension Socket {
    /// Sends the client away in a way that it notices: its next call fails with ECONNRESET.
    func refuse() {
        try? setAbortiveClose()
        close()
    }
}
