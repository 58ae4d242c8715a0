import Kernel
import ManyPortsPitfalls
import Stage
import Testing

@Suite("Chapter 12: what goes wrong", .serialized)
struct Chapter12ManyPortsPitfalls {
    // I12.1 does not hold.
    @Test(
        "one-port-contention: who is inside the port keeps three others from their packets",
        arguments: DriverKind.permitted)
    func onePortContention(driver: DriverKind) async throws {
        try await happens(OnePortContention.pitfall, driver)
    }

    // I12.4 does not hold.
    @Test(
        "unbalanced-ports: placed in turn, all busy clients are on one port", arguments: DriverKind.permitted)
    func unbalancedPorts(driver: DriverKind) async throws {
        try await happens(UnbalancedPorts.pitfall, driver)
    }

    // I12.6 does not hold.
    @Test(
        "moved-with-packet-queued: the new port's worker is before the old one's",
        arguments: DriverKind.permitted)
    func movedWithPacketQueued(driver: DriverKind) async throws {
        try await happens(MovedWithPacketQueued.pitfall, driver)
    }
}
