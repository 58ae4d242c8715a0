import Contexts
import Glibc
import Kernel
import Stage
import Testing

/// The broken half shows the bad outcome, and, where more than one is bad, says which in this line.
func happens(_ pitfall: Pitfall, _ driver: DriverKind, _ line: String? = nil) async throws {
    let seen = try await onAThread { try pitfall.broken(driver) }
    #expect(seen.happened, "\(seen.lines)")
    if let line { #expect(seen.lines.contains(line), "\(seen.lines)") }
}

/// The fixed half does not.
func holds(_ pitfall: Pitfall, _ driver: DriverKind) async throws {
    let seen = try await onAThread { try pitfall.fixed(driver) }
    #expect(!seen.happened, "\(seen.lines)")
}

/// In a process of its own: it happens with a descriptor's number that is given again at once. So what the runtime opens
/// for itself, on a thread of its own, has to be open before.
func happensAlone(_ pitfall: Pitfall) throws {
    Resources.settle()
    let seen = try pitfall.broken(.epoll)
    #expect(seen.happened, "\(seen.lines)")
}
