import FileTransfer
import Glibc
import Kernel
import Stage
import Testing

/// Something that was to hold did not. Thrown rather than noted: a thread of its own belongs to no test.
struct Unmet: Error, CustomStringConvertible {
    let description: String
}

/// To be called on a thread of its own, where `#expect` would not know its test.
func require(_ condition: Bool, _ words: @autoclosure () -> String = "not so", line: Int = #line) throws {
    if !condition { throw Unmet(description: "line \(line): \(words())") }
}

/// The same for a call that is to be refused.
func refuses(
    _ expected: TransferError, line: Int = #line, _ body: () throws -> Void
) throws {
    do { try body() } catch let error as TransferError where error == expected { return }
    throw Unmet(description: "line \(line): not refused")
}

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
