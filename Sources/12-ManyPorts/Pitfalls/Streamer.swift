import Contexts
import Glibc
import Kernel
import Stage

/// The value at a position of the stream that a ``Streamer`` sends.
public func byte(_ position: Int) -> UInt8 { UInt8(truncatingIfNeeded: (position &* 0x9e37_79b1) >> 13) }

/// A client that sends a stream of known bytes, while it compares what comes back.
public final class Streamer: Sendable {
    private struct State {
        var sent = 0
        var heard = 0
        var wrongAt: Int?
        var threads: [Kernel.Thread] = []
    }
    private let socket: Socket
    private let state = Guarded(State())

    /// A client whose connection stands.
    public init(_ socket: Socket) { self.socket = socket }

    /// How many bytes have come back.
    public var heard: Int { state.locked { $0.heard } }

    /// The first byte that is not what was sent there; nil when all are.
    public var wrongAt: Int? { state.locked { $0.wrongAt } }

    /// Sends pieces of up to 997 bytes until `isOver` says so, and then that there is no more.
    ///
    /// - Parameter pause: Microseconds between two pieces.
    public func start(pause: UInt32 = 0, until isOver: @escaping @Sendable () -> Bool) {
        let threads = [
            startThread("writer") { [self] in
                while !isOver() {
                    let start = state.locked { $0.sent }
                    let piece = (start..<start + 1 + start % 997).map(byte)
                    guard (try? socket.say(piece)) != nil else { return }
                    state.locked { $0.sent += piece.count }
                    if pause > 0 { usleep(pause) }
                }
                try? socket.shutDownSending()
            },
            startThread("reader") { [self] in
                while let first = try? socket.hearBytes(1), !first.isEmpty {
                    take(first + ((try? socket.hearBytes(4_096, within: .zero)) ?? []))
                }
            },
        ]
        state.locked { $0.threads = threads }
    }

    private func take(_ bytes: [UInt8]) {
        state.locked { state in
            for (offset, value) in bytes.enumerated() where value != byte(state.heard + offset) {
                state.wrongAt = state.wrongAt ?? state.heard + offset
            }
            state.heard += bytes.count
        }
    }

    /// Waits for the end. Whether every byte came back, in its place.
    public func finish() -> Bool {
        for thread in state.locked({ $0.threads }) { thread.join() }
        return state.locked { $0.wrongAt == nil && $0.heard == $0.sent && $0.heard > 0 }
    }
}
