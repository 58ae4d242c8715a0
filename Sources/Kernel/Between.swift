#if DEBUG
    import Synchronization

    /// Moments within the way of an operation at which a test may do something: what happens there by chance once in a
    /// thousand times happens each time then. Not in a release build, where these moments cost nothing.
    package enum Between: Sendable {
        /// An operation has a step behind it, and another before it.
        case twoSteps
        /// It is about to be written into a ring.
        case postAndRing
        /// An accept has its client, and nobody knows yet.
        case clientAndAdoption
        /// An accept that waits for first data is in its connection's lane, and has not looked there.
        case clientAndFirstData
        /// A helper thread has taken it, and has not begun.
        case queueAndHelper

        private static let visitor = Mutex<(@Sendable (Between, Overlapped) -> Void)?>(nil)

        /// Calls `visit` at each of these moments while `body` runs, on the thread that is there, with no lock held.
        package static func visiting<Result>(
            _ visit: @escaping @Sendable (Between, Overlapped) -> Void, _ body: () throws -> Result
        ) rethrows -> Result {
            visitor.withLock { $0 = visit }
            defer { visitor.withLock { $0 = nil } }
            return try body()
        }

        static func pass(_ moment: Between, _ operation: Overlapped) {
            visitor.withLock { $0 }?(moment, operation)
        }
    }
#endif
