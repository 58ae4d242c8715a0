import Kernel

extension AcceptPool {
    /// The pool's limits. Each has a name and a default.
    public struct Options: Sendable {
        /// Accepts that wait while nothing special happens.
        public var initial = 10
        /// When only so many still wait for a client, the pool grows.
        public var lowWater = 2
        /// The most accepts at a time, those with a silent client included.
        public var maximum = 1_024
        /// Room for a client's first data, in bytes. With 0 an accept completes as soon as a client has connected.
        public var receiveLength = 512
        /// How long a client may hold an accept without a word; nil: for ever.
        public var silenceLimit: Duration? = .seconds(2)
        /// How often the pool looks for silent clients, and whether it has grown too large.
        public var lookInterval = Duration.milliseconds(500)
        /// The first pause after an accept has failed for want of something; each further one is twice as long.
        public var backOff = Duration.milliseconds(10)
        /// The longest pause.
        public var longestBackOff = Duration.seconds(1)

        /// The defaults.
        public init() {}
    }

    /// What a pool has done so far, and what it has now.
    public struct Counters: Sendable, Equatable {
        /// Accepts pending now, with or without a silent client.
        public var pending = 0
        /// How many of them have a client that has said nothing yet.
        public var held = 0
        /// Accepts put aside now, to be posted again.
        public var resting = 0
        /// Sockets that wait to be used again.
        public var fresh = 0
        /// The most accepts that were ever pending.
        public var peak = 0
        /// Accepts that were posted, again or for the first time.
        public var posted = 0
        /// Clients that got in.
        public var accepted = 0
        /// Clients that left without a word.
        public var empty = 0
        /// Silent clients that were ended.
        public var swept = 0
        /// Accepts that failed: by a client's reset, or for want of something.
        public var failed = 0
        /// Accepts that were not even pending, since their post failed.
        public var refusedPosts = 0
        /// Times that the pool grew.
        public var shortages = 0
        /// Times that accepting paused.
        public var pauses = 0
        /// Sockets that came back for another client.
        public var reused = 0

        /// Nothing yet.
        public init() {}
    }
}
