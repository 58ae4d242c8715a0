import Kernel
import ServersPitfalls
import Stage
import Testing

@Suite("Chapter 11: what does not go wrong any more", .serialized)
struct Chapter11ServersFixes {
    // I11.1
    @Test("connection-limit: the third hears why, and the end", arguments: DriverKind.permitted)
    func connectionLimit(driver: DriverKind) async throws { try await holds(ConnectionLimit.pitfall, driver) }

    @Test("one-address-takes-all: the fourth of one address is refused", arguments: DriverKind.permitted)
    func oneAddressTakesAll(driver: DriverKind) async throws {
        try await holds(OneAddressTakesAll.pitfall, driver)
    }

    // I11.2
    @Test("address-never-freed: it was noted when it came, and leaves", arguments: DriverKind.permitted)
    func addressNeverFreed(driver: DriverKind) async throws {
        try await holds(AddressNeverFreed.pitfall, driver)
    }

    @Test(
        "banned-sees-the-server: dropped, or reset before anything is made", arguments: DriverKind.permitted)
    func bannedSeesTheServer(driver: DriverKind) async throws {
        try await holds(BannedSeesTheServer.pitfall, driver)
    }

    // I11.6
    @Test("socket-timeouts-ignored: the server's own clock ends it", arguments: DriverKind.permitted)
    func socketTimeoutsIgnored(driver: DriverKind) async throws {
        try await holds(SocketTimeoutsIgnored.pitfall, driver)
    }

    // I11.4
    @Test("send-flood: the flooder is paused, and hears every byte", arguments: DriverKind.permitted)
    func sendFlood(driver: DriverKind) async throws { try await holds(SendFlood.pitfall, driver) }

    @Test("backlog-deadlock: both sides are bounded, and both go on", arguments: DriverKind.permitted)
    func backlogDeadlock(driver: DriverKind) async throws { try await holds(BacklogDeadlock.pitfall, driver) }

    @Test("close-before-delivered: all of the answer comes, and the end", arguments: DriverKind.permitted)
    func closeBeforeDelivered(driver: DriverKind) async throws {
        try await holds(CloseBeforeDelivered.pitfall, driver)
    }

    // I11.7
    @Test("sent-is-not-delivered: only its program's word counts", arguments: DriverKind.permitted)
    func sentIsNotDelivered(driver: DriverKind) async throws {
        try await holds(SentIsNotDelivered.pitfall, driver)
    }

    // I11.5
    @Test("callback-under-lock: both return", arguments: DriverKind.permitted)
    func callbackUnderLock(driver: DriverKind) async throws {
        try await holds(CallbackUnderLock.pitfall, driver)
    }

    @Test("random-disconnects: nothing is left, nothing is mixed up", arguments: DriverKind.permitted)
    func randomDisconnects(driver: DriverKind) async throws {
        try await holds(RandomDisconnects.pitfall, driver)
    }

    // Threads and descriptors are the process's: it has one of its own.
    @Test("shutdown-under-load: at 20 moments everything comes back")
    func shutdownUnderLoad() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            for driver in DriverKind.permitted {
                let seen = try ShutdownUnderLoad.pitfall.fixed(driver)
                #expect(!seen.happened, "\(seen.lines)")
            }
        }
    }

    // I11.3
    @Test("shutdown-gives-up-waiting: stop returns after the handler", arguments: DriverKind.permitted)
    func shutdownGivesUpWaiting(driver: DriverKind) async throws {
        try await holds(ShutdownGivesUpWaiting.pitfall, driver)
    }

    @Test("start-twice: exactly one starts", arguments: DriverKind.permitted)
    func startTwice(driver: DriverKind) async throws { try await holds(StartTwice.pitfall, driver) }

    // Threads and descriptors are the process's: it has one of its own.
    @Test("port-already-in-use: nothing is left, and the error names the port")
    func portAlreadyInUse() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            for driver in DriverKind.permitted {
                let seen = try PortAlreadyInUse.pitfall.fixed(driver)
                #expect(!seen.happened, "\(seen.lines)")
            }
        }
    }

    @Test("connect-without-reconnect: it comes back, as planned", arguments: DriverKind.permitted)
    func connectWithoutReconnect(driver: DriverKind) async throws {
        try await holds(ConnectWithoutReconnect.pitfall, driver)
    }

    // I11.8
    @Test("reconnect-on-the-io-worker: the pause is a timer's", arguments: DriverKind.permitted)
    func reconnectOnTheIOWorker(driver: DriverKind) async throws {
        try await holds(ReconnectOnTheIOWorker.pitfall, driver)
    }

    // Threads and descriptors are the process's: it has one of its own.
    @Test("failed-connect-leaks-socket: no descriptor more")
    func failedConnectLeaksSocket() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            for driver in DriverKind.permitted {
                let seen = try FailedConnectLeaksSocket.pitfall.fixed(driver)
                #expect(!seen.happened, "\(seen.lines)")
            }
        }
    }
}
