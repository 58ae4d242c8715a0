#if DEBUG
    /// Moments within the way of an operation at which a test may do something: what happens there by chance once in a
    /// thousand times happens each time then. Not in a release build, where these moments cost nothing.
    package enum Between: Sendable {
        /// An operation has a step behind it, and another before it.
        case twoSteps
        /// It is about to be written into a ring.
        case postAndRing
        /// An accept has the descriptor of its client, and its socket has not adopted it.
        case clientAndAdoption
        /// An accept that waits for first data is in its connection's lane, and has not looked there.
        case clientAndFirstData
        /// A helper thread has taken it, and has not begun.
        case queueAndHelper

        private static let lock = Lock()
        /// Guarded by the lock.
        nonisolated(unsafe) private static var visitor: (@Sendable (Between, Overlapped) -> Void)?

        /// Calls `visit` at each of these moments while `body` runs, on the thread that is there, with no lock held.
        package static func visiting<Result>(
            _ visit: @escaping @Sendable (Between, Overlapped) -> Void, _ body: () throws -> Result
        ) rethrows -> Result {
            lock.locked { visitor = visit }
            defer { lock.locked { visitor = nil } }
            return try body()
        }

        static func pass(_ moment: Between, _ operation: Overlapped) {
            lock.locked { visitor }?(moment, operation)
        }
    }
#endif
