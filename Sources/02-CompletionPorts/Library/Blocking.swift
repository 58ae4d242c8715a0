import Kernel

extension CompletionPort {
    /// Runs something that may block, out of a handler. For that time the worker does not count against the limit:
    /// if packets wait, another one is released at once. Afterwards the limit may be exceeded until workers come
    /// back to the port.
    ///
    /// A port notices blocking by itself, too, but only after a few milliseconds, and only on Linux.
    public func blocking<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure)
        -> Result
    {
        let worker = Worker.current
        guard worker.tie == number else { return try body() }
        lock.lock()
        let isInside = worker.state == .away
        if worker.state == .running { running -= 1 }
        worker.state = .away
        unlockAndRelease()
        // What has been posted starts, and what will be posted in there.
        driver.holdBack(false)
        driver.flush()
        defer {
            // Unless it has asked a port meanwhile, in there.
            if !isInside, worker.tie == number {
                driver.holdBack(true)
                lock.locked {
                    if worker.state == .away {
                        worker.state = .running
                        running += 1
                    }
                }
            }
        }
        return try body()
    }

    /// Whether the calling thread is a worker of this port: the last port that it asked is this one. Such a thread must not wait
    /// for the port's end.
    public var isOwnWorker: Bool { Worker.current.tie == number }

    // MARK: Ties

    /// The calling thread asks this port for the first time, or again after another.
    func tie(_ worker: Worker) {
        _ = worker.port?.use { $0.untie(worker) }
        worker.tie = number
        worker.port = reference
        driver.holdBack(true)
        lock.lock()
        worker.state = .parked
        tied.append(worker)
        // From two workers on there can be one that waits while another is blocked.
        if tied.count > 1, sampler == nil, !isClosed, options.noticesBlocking { sampler = Sampler(self) }
        lock.unlock()
    }

    /// The thread has asked another port, or has ended.
    func untie(_ worker: Worker) {
        lock.lock()
        tied.removeAll { $0 === worker }
        if worker.state == .running { running -= 1 }
        unlockAndRelease()
        driver.holdBack(false)
        driver.flush()
    }
}
