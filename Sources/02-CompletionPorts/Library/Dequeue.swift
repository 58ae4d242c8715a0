import Kernel
import Timeline

extension CompletionPort {
    /// Waits for a packet.
    ///
    /// A worker that asks while packets are queued gets the oldest at once, unless that would make more workers run
    /// than the limit allows.
    ///
    /// - Parameter timeout: How long to wait at most; nil waits for ever, zero not at all.
    ///
    /// Win32 counterpart: `GetQueuedCompletionStatus`.
    public func dequeue(timeout: Duration? = nil) -> Dequeued { dequeue(until: .after(timeout)) }

    /// The same, with a moment on the clock, for a caller that knows it already.
    public func dequeue(until deadline: Deadline) -> Dequeued {
        let worker = arrive()
        let outcome = wait(worker, until: deadline)
        guard case .ready(let handed) = outcome else {
            return depart(worker, outcome) == .closed ? .closed : .timedOut
        }
        return take(handed ?? queue.popFirst()!, worker)
    }

    /// Takes a packet that is queued already. Nil when this worker would have to wait for one: then the driver has not been
    /// asked either. For a caller that has something to put in order before it waits.
    ///
    /// Win32 counterpart: none; `GetQueuedCompletionStatus` with a time-out of zero comes near.
    public func dequeueNow() -> Dequeued? {
        let worker = arrive()
        if turnsWithoutKernel > 0, isLookDue { lookIntoDriver() }
        guard mayTake else {
            _ = depart(worker, .timedOut)
            return nil
        }
        return take(queue.popFirst()!, worker)
    }

    /// With the lock, which it gives back: the packet is this worker's.
    @inline(__always)
    private func take(_ packet: Packet, _ worker: Worker) -> Dequeued {
        leave(worker, taking: 1)
        settle(packet)
        Recorder.mark(.dequeued, packet.operation?.identity ?? 0)
        if packet.errorCode != 0, let error = packet.error { return .failed(packet, error) }
        return .completed(packet)
    }

    /// Waits for packets, and takes as many as are there, up to the room in the batch and up to this worker's share:
    /// what is queued is for all that may run at a time. Never waits for more than the first. What is still in the
    /// batch is left there.
    ///
    /// Win32 counterpart: `GetQueuedCompletionStatusEx`.
    public func dequeue(into batch: inout PacketBatch, timeout: Duration? = nil) -> DequeuedBatch {
        let deadline = timeout == nil ? .never : Deadline.after(timeout)
        let worker = arrive()
        let outcome = wait(worker, until: deadline)
        guard case .ready(let handed) = outcome else { return depart(worker, outcome) }
        var taken = 0
        if let handed {
            batch.append(handed)
            taken = 1
        }
        let sharers = max(1, min(concurrency, tied.count))
        let share = (queue.count + taken + sharers - 1) / sharers
        let room = max(1, batch.capacity - batch.count + taken)
        while taken < min(share, room) {
            let packet = queue.removeFirst()
            settle(packet)
            batch.append(packet)
            taken += 1
        }
        leave(worker, taking: taken)
        if let handed { settle(handed) }
        return .packets(taken)
    }

    // MARK: Arriving and leaving

    /// The calling thread asks: from here on it does not count as running. Returns with the lock.
    private func arrive() -> Worker {
        let worker = Worker.current
        if worker.tie != number { tie(worker) }
        lock.lock()
        if worker.state == .running { running -= 1 }
        worker.state = .parked
        lastTicket += 1
        worker.ticket = lastTicket
        return worker
    }

    /// With the lock: takes the worker back among the running, and gives the lock back.
    private func leave(_ worker: Worker, taking packets: Int) {
        defer { handOver(worker) }
        worker.state = .running
        running += 1
        turns += 1
        turnsWithoutKernel += packets
        sampler?.stir()
        // What it leaves in the queue is set aside for no other worker: most likely it is back first itself.
        unlockAndRelease(giving: false)
    }

    /// Without the lock: what the worker has posted since it asked last. If it has asked the driver meanwhile, that has gone
    /// along with the question.
    @inline(__always)
    private func handOver(_ worker: Worker) {
        if worker.owesHandOver { driver.flush() }
        worker.owesHandOver = options.submission == .afterBatch
    }

    private enum Outcome {
        case ready(Packet?)
        case timedOut
        case closed
    }

    /// With the lock: the worker leaves without a packet, and gives the lock back.
    private func depart(_ worker: Worker, _ outcome: Outcome) -> DequeuedBatch {
        defer { handOver(worker) }
        worker.state = .running
        running += 1
        unlockAndRelease()
        if case .closed = outcome { return .closed }
        return .timedOut
    }

    // MARK: Waiting

    /// With the lock: whether there is a packet, and the limit lets one more worker have it.
    @inline(__always)
    private var mayTake: Bool {
        !queue.isEmpty && (running + promised.count < concurrency || isClosed)
    }

    /// With the lock, before and after: waits until there is a packet that this worker may take.
    private func wait(_ worker: Worker, until deadline: Deadline) -> Outcome {
        if turnsWithoutKernel > 0, isLookDue { lookIntoDriver() }
        var hasWaited = false
        while true {
            if mayTake {
                guard let newer = parked.top, newer.ticket > worker.ticket, !isClosed else {
                    return .ready(nil)
                }
                hand(to: newer)
                continue
            }
            if isClosed, queue.isEmpty { return .closed }
            if hasWaited, deadline.hasPassed { return .timedOut }
            hasWaited = true
            // Not while a worker is being woken there: the wake-up might reach this one instead.
            if running + inKernel < concurrency, promised.isEmpty {
                inKernel += 1
                if let packet = askKernel(worker, until: deadline) { return .ready(packet) }
                continue
            }
            if worker.owesHandOver {
                // A parked worker does not pass by the driver, which would submit them.
                worker.owesHandOver = false
                lock.unlock()
                driver.flush()
                lock.lock()
                continue
            }
            switch park(worker, until: deadline) {
            case .packet(let packet):
                // Counted as running since it was handed over; `leave` counts it now.
                running -= 1
                return .ready(packet)
            case .place: if let packet = askKernel(worker, until: deadline) { return .ready(packet) }
            case .end, nil: break
            }
        }
    }

    /// With the lock, and counted in the driver: asks it for completions, and waits there if there is time. Returns
    /// the packet that was promised meanwhile to those in the driver.
    private func askKernel(_ worker: Worker, until deadline: Deadline) -> Packet? {
        worker.state = .inKernel
        worker.owesHandOver = false
        turnsWithoutKernel = 0
        turnsBegan = 0
        let polls = options.pollBeforeSleep > .zero && inKernel == 1
        lock.unlock()
        var completed = CompletionList()
        if !polls || !pollBeforeSleep(until: deadline, &completed) {
            driver.poll(for: self, until: deadline, &completed)
        }
        lock.lock()
        enqueue(&completed)
        inKernel -= 1
        // This worker looks at the queue next, and wakes another if there is need.
        isWaking = false
        worker.state = .parked
        if isClosed, inKernel == 0 { driver.retire() }
        return promised.popFirst()
    }

    /// With the lock: whether the driver has not been asked for too many turns, or too long.
    private var isLookDue: Bool {
        guard turnsWithoutKernel < CompletionPort.turnsBeforeKernel else { return true }
        // With an empty queue it is asked in any case.
        guard inKernel == 0, !queue.isEmpty else { return false }
        let now = coarseNanoseconds()
        if turnsBegan == 0 { turnsBegan = now }
        return now - turnsBegan >= CompletionPort.timeBeforeKernel
    }

    /// With the lock, before and after: what has completed while the driver was empty is queued now, and so before
    /// whatever comes next. I2.2
    func lookIntoDriver() {
        guard inKernel == 0, hasHandles, !isClosed else { return }
        turnsWithoutKernel = 0
        turnsBegan = 0
        lock.unlock()
        var completed = CompletionList()
        driver.poll(for: self, until: .now, &completed)
        lock.lock()
        enqueue(&completed)
        // This poll may have taken a wake-up meant for a worker that has just gone there. Wake it again.
        if isWaking { driver.wake() }
    }

    /// Asks again and again for a short time, before going to sleep. True when there is no need to sleep.
    private func pollBeforeSleep(until deadline: Deadline, _ completed: inout CompletionList) -> Bool {
        let end = min(deadline, .after(options.pollBeforeSleep))
        repeat {
            driver.poll(for: self, until: .now, &completed)
            // Being woken, it comes out, though there may be nothing left to do: this poll may have taken the wake-up.
            if !completed.isEmpty || lock.locked({ isWaking || !queue.isEmpty }) { return true }
        } while !end.hasPassed
        return false
    }

    /// With the lock, before and after: waits in the stack. Returns nil when the deadline has passed.
    private func park(_ worker: Worker, until deadline: Deadline) -> Worker.Release? {
        worker.release = nil
        parked.insert(worker)
        sampler?.stir()
        while worker.release == nil {
            if !worker.wakeUp.wait(lock, until: deadline), worker.release == nil {
                parked.remove(worker)
                return nil
            }
        }
        defer { worker.release = nil }
        return worker.release
    }

    // MARK: Releasing

    /// With the lock: a packet for the newest of the parked workers.
    private func hand(to newest: Worker) {
        _ = parked.pop()
        newest.release = .packet(queue.popFirst()!)
        running += 1
        newest.wakeUp.signal()
    }

    /// Gives the lock back after a change, and releases the workers that the limit allows. A worker that leaves the
    /// driver comes by here, or takes what there is: I2.7
    @inline(__always)
    func unlockAndRelease(giving: Bool = true) {
        // Mostly no worker waits, or there is nothing to wait for.
        let isAnybody = inKernel > 0 ? !queue.isEmpty || !promised.isEmpty || isClosed : !parked.isEmpty
        if isAnybody, giving { give() }
        let wakes = isAnybody && releaseSomebody()
        lock.unlock()
        if wakes { driver.wake() }
    }

    /// With the lock: packets for workers that wait already, the newest first, not for later ones. I2.5
    private func give() {
        while !queue.isEmpty, !isClosed, running + promised.count < concurrency {
            if let newest = parked.top, newest.ticket > newestInKernel {
                hand(to: newest)
            } else if inKernel > promised.count {
                promised.append(queue.popFirst()!)
            } else {
                return
            }
        }
    }

    /// With the lock: the ticket of the newest in the driver without a packet set aside; 0 without any.
    private var newestInKernel: Int {
        // The newest of all, and from there one down for each promise.
        var newest = Int.max
        for _ in 0...promised.count {
            newest = tied.reduce(0) { $1.state == .inKernel && $1.ticket < newest ? max($0, $1.ticket) : $0 }
        }
        return newest
    }

    /// With the lock. True when the driver is to be woken, without the lock.
    private func releaseSomebody() -> Bool {
        while running + inKernel < concurrency, let newest = parked.top {
            if !queue.isEmpty, newest.ticket > newestInKernel {
                hand(to: newest)
            } else if inKernel == 0 {
                // A worker has to wait in the driver. One is enough: the next that asks joins it there, and is the
                // newer one by right.
                _ = parked.pop()
                inKernel += 1
                newest.release = .place
                newest.state = .inKernel
                newest.wakeUp.signal()
            } else {
                break
            }
        }
        // A worker waits, and the limit is in the way: it should be known whether the running ones do run.
        if running >= concurrency { sampler?.stir() }
        let isSomebodyNeeded = isClosed || !promised.isEmpty || !queue.isEmpty && running < concurrency
        guard inKernel > 0, !isWaking, isSomebodyNeeded else { return false }
        isWaking = true
        return true
    }
}
