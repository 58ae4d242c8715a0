import Kernel
import ServersPitfalls
import Stage
import Testing

@Suite("Chapter 11: what goes wrong", .serialized)
struct Chapter11ServersPitfalls {
    @Test("connection-limit: the third is closed without a word", arguments: DriverKind.permitted)
    func connectionLimit(driver: DriverKind) async throws {
        try await happens(ConnectionLimit.pitfall, driver)
    }

    @Test("one-address-takes-all: the honest one finds no place", arguments: DriverKind.permitted)
    func oneAddressTakesAll(driver: DriverKind) async throws {
        try await happens(OneAddressTakesAll.pitfall, driver)
    }

    @Test("address-never-freed: the address stays in the list")
    func addressNeverFreed() async throws { try await happens(AddressNeverFreed.pitfall, .epoll) }

    @Test("banned-sees-the-server: a session is made for it", arguments: DriverKind.permitted)
    func bannedSeesTheServer(driver: DriverKind) async throws {
        try await happens(BannedSeesTheServer.pitfall, driver)
    }

    @Test("socket-timeouts-ignored: the receive stays pending", arguments: DriverKind.permitted)
    func socketTimeoutsIgnored(driver: DriverKind) async throws {
        try await happens(SocketTimeoutsIgnored.pitfall, driver)
    }

    @Test("send-flood: answers are thrown away", arguments: DriverKind.permitted)
    func sendFlood(driver: DriverKind) async throws { try await happens(SendFlood.pitfall, driver) }

    @Test("backlog-deadlock: both wait for room")
    func backlogDeadlock() async throws { try await happens(BacklogDeadlock.pitfall, .epoll) }

    @Test("close-before-delivered: the rest of the answer is lost")
    func closeBeforeDelivered() async throws { try await happens(CloseBeforeDelivered.pitfall, .epoll) }

    @Test("sent-is-not-delivered: a client that has read nothing is counted", arguments: DriverKind.permitted)
    func sentIsNotDelivered(driver: DriverKind) async throws {
        try await happens(SentIsNotDelivered.pitfall, driver)
    }

    @Test("callback-under-lock: neither handler returns")
    func callbackUnderLock() async throws { try await happens(CallbackUnderLock.pitfall, .epoll) }

    @Test("random-disconnects: the accounts are wrong", arguments: DriverKind.permitted)
    func randomDisconnects(driver: DriverKind) async throws {
        try await happens(RandomDisconnects.pitfall, driver)
    }

    @Test("shutdown-under-load: a handler uses what is freed", arguments: DriverKind.permitted)
    func shutdownUnderLoad(driver: DriverKind) async throws {
        try await happens(ShutdownUnderLoad.pitfall, driver)
    }

    @Test("shutdown-gives-up-waiting: a handler uses what is freed", arguments: DriverKind.permitted)
    func shutdownGivesUpWaiting(driver: DriverKind) async throws {
        try await happens(ShutdownGivesUpWaiting.pitfall, driver)
    }

    @Test("start-twice: it listens twice")
    func startTwice() async throws { try await happens(StartTwice.pitfall, .epoll) }

    // Threads and descriptors are the process's: it has one of its own.
    @Test("port-already-in-use: threads and descriptors are left")
    func portAlreadyInUse() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            for driver in DriverKind.permitted {
                let seen = try PortAlreadyInUse.pitfall.broken(driver)
                #expect(seen.happened, "\(seen.lines)")
            }
        }
    }

    @Test("connect-without-reconnect: the client stays away", arguments: DriverKind.permitted)
    func connectWithoutReconnect(driver: DriverKind) async throws {
        try await happens(ConnectWithoutReconnect.pitfall, driver)
    }

    @Test("reconnect-on-the-io-worker: the other connection waits", arguments: DriverKind.permitted)
    func reconnectOnTheIOWorker(driver: DriverKind) async throws {
        try await happens(ReconnectOnTheIOWorker.pitfall, driver)
    }

    // Threads and descriptors are the process's: it has one of its own.
    @Test("failed-connect-leaks-socket: a descriptor for each attempt")
    func failedConnectLeaksSocket() async {
        await #expect(processExitsWith: .success) {
            Resources.settle()
            for driver in DriverKind.permitted {
                let seen = try FailedConnectLeaksSocket.pitfall.broken(driver)
                #expect(seen.happened, "\(seen.lines)")
            }
        }
    }
}
