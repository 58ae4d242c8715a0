import Contexts
import Glibc
import Kernel
import ManyPorts
import Reordering
import Stage
import Testing

/// The broken half shows the bad outcome.
func happens(_ pitfall: Pitfall, _ driver: DriverKind) async throws {
    let seen = try await onAThread { try pitfall.broken(driver) }
    #expect(seen.happened, "\(seen.lines)")
}

/// The fixed half does not.
func holds(_ pitfall: Pitfall, _ driver: DriverKind) async throws {
    let seen = try await onAThread { try pitfall.fixed(driver) }
    #expect(!seen.happened, "\(seen.lines)")
}

/// A set for a test: moves are made by hand.
func makeSet(
    _ driver: DriverKind, ports: Int = 2, workersEach: Int = 1,
    _ configure: (inout PortSet.Options) -> Void = { _ in }
) throws(SystemError) -> PortSet {
    var options = PortSet.Options()
    (options.ports, options.workersEach, options.interval) = (ports, workersEach, nil)
    options.streams.port.driver = driver
    configure(&options)
    return try PortSet(options)
}

/// Numbers that are random, and the same each time. (SplitMix64.)
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
        return word ^ word >> 31
    }
}
