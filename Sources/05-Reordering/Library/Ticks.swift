extension StreamHub {
    /// Time has passed: tells the handlers of all connections. To be called now and then by code with a clock, such as a
    /// `PeriodicTask`; what has limits has no thread of its own.
    ///
    /// - Parameter now: Nanoseconds on the monotonic clock.
    public func tick(_ now: UInt64) {
        for connection in connections { connection.tick(now) }
    }
}

extension StreamConnection {
    fileprivate func tick(_ now: UInt64) { lock.locked { handler }?.tick(now, on: self) }
}
