import CompletionPorts
import Kernel
import Timeline

/// The threads: how they come, what they do, how they go.
extension ThreadPool {
    /// Does something, under the monitor, that a thread has to see: there is one when this returns. The first thread is
    /// made here, and none ends without having looked. (I10.2)
    ///
    /// - Throws: EBADF when the pool is closed, EAGAIN when it has no thread and the system gives none. Then nothing
    ///   was done.
    func withThread<Result>(
        _ attempted: String, _ body: () throws(SystemError) -> Result
    ) throws(SystemError) -> Result {
        let (result, needsWake): (Result, Bool) = try monitor.locked { () throws(SystemError) in
            if isClosed { throw SystemError.closed(attempted) }
            if count.threads == 0 {
                try startThread()
                countThread()
            }
            return (try body(), mustWake())
        }
        if needsWake { wake() }
        return result
    }

    /// Under the monitor: a thread more. It is about to wait.
    private func countThread() {
        count.threads += 1
        count.waiting += 1
        count.peak = max(count.peak, count.threads)
    }

    /// Under the monitor: whether a spare is to be started, since no thread waits. It counts from here on.
    func reserveSpare() -> Bool {
        guard count.waiting == 0, count.threads < options.maximum else { return false }
        countThread()
        return true
    }

    /// Starts a spare that has been reserved. Without one it is slower, and that is all: this thread will be back.
    func startSpare() {
        joinEnded()
        do throws(SystemError) {
            try startThread()
        } catch {
            monitor.locked {
                count.threads -= 1
                count.waiting -= 1
                count.refusedThreads += 1
            }
        }
    }

    private func startThread() throws(SystemError) {
        try handleLock.locked { () throws(SystemError) in
            let number = lastNumber + 1
            handles[number] = try Kernel.Thread("pool thread \(number)") { self.work(number) }
            lastNumber = number
        }
    }

    func joinEnded() {
        let threads = handleLock.locked {
            defer { ended = [] }
            return ended.compactMap { handles.removeValue(forKey: $0) }
        }
        for thread in threads { thread.join() }
    }

    // MARK: A thread's life

    /// Takes packets as long as there are some. Before it waits it closes its account and looks at the timers.
    private func work(_ number: Int) {
        let instance = CallbackInstance(self)
        CallbackInstance.current = instance
        monitor.locked { instances.append(instance) }
        while true {
            switch port.dequeueNow() ?? waitForPacket(instance) {
            case .completed(let packet), .failed(let packet, _):
                handle(packet, instance)
            case .timedOut:
                if instance.idles(for: options.idleTime), end(instance, number, ifIdle: true) { return }
            case .closed:
                _ = end(instance, number, ifIdle: false)
                return
            }
        }
    }

    /// Waits for a packet, at most until the nearest timer is due or the thread has idled for too long.
    private func waitForPacket(_ instance: CallbackInstance) -> Dequeued {
        let (due, deadline, isLast) = monitor.locked {
            closeAccount(instance)
            let due = timers.takeDue()
            let deadline = min(timers.next, instance.idleEnd)
            instance.sleepsUntil = deadline
            return (due, deadline, isOver)
        }
        instance.object = nil
        if isLast { port.close() }
        // Posted rather than called here: so the limit holds for timers, too, and they run side by side.
        for call in due { post(call) }
        return port.dequeue(until: deadline)
    }

    /// Under the monitor: if a callback of this thread has returned, it is over now.
    private func closeAccount(_ instance: CallbackInstance) {
        guard instance.isBusy else { return }
        instance.isBusy = false
        count.waiting += 1
        count.running -= 1
        count.callbacks += 1
        instance.object?.end()
    }

    /// The thread ends; false when it has only been idle, and is needed all the same.
    private func end(_ instance: CallbackInstance, _ number: Int, ifIdle: Bool) -> Bool {
        // Each joins those that ended before it: their stacks are given back.
        joinEnded()
        let (isOver, needsWake) = monitor.locked {
            // The last that waits is the spare of those that run: they may block at any time.
            let isSpare = count.waiting == 1 && count.running > 0
            if ifIdle, isSpare || count.threads <= wantedThreads || isClosed { return (false, false) }
            count.threads -= 1
            count.waiting -= 1
            instances.removeAll { $0 === instance }
            handleLock.locked { if isShared { handles[number] = nil } else { ended.append(number) } }
            monitor.broadcast()
            // This may have been the only thread to know of the next timer.
            return (true, mustWake())
        }
        if needsWake { wake() }
        return isOver
    }

    // MARK: Packets

    private func handle(_ packet: Packet, _ instance: CallbackInstance) {
        // Asked before: the callback may let the operation go.
        let identity = packet.operation?.identity ?? 0
        defer { Recorder.mark(.handled, identity) }
        if packet.isPosted, let operation = packet.operation {
            // Only the pool posts, and only its objects.
            let object = unsafeDowncast(operation, to: PoolObject.self)
            run(instance, object, epoch: packet.bytes) { object.called(packet, instance) }
        } else if let operation = packet.operation as? PoolOperation, let (io, epoch) = operation.release() {
            run(instance, io, epoch: epoch) { io.called(packet, instance) }
        } else if let pointer = UnsafeRawPointer(bitPattern: packet.key) {
            // Valid: bindings stay as long as the pool.
            let binding = Unmanaged<Binding>.fromOpaque(pointer).takeUnretainedValue()
            run(instance, nil, epoch: 0) { binding.callback(packet, packet.error) }
        } else {
            // An empty packet only woke this thread: it is about to look at the timers.
            monitor.locked { if packet.isPosted { isWaking = false } else { count.strays += 1 } }
        }
    }

    /// Runs a callback, unless it has been cancelled. For that time this thread does not wait: another one does, and
    /// knows of the next timer. Its account stays open until the thread has the next packet, or is about to wait: so the
    /// monitor is taken once for each callback, and not twice.
    private func run(
        _ instance: CallbackInstance, _ object: PoolObject?, epoch: Int, _ callback: () -> Void
    ) {
        let (isWanted, due, needsSpare, needsWake) = monitor.locked {
            closeAccount(instance)
            instance.sleepsUntil = nil
            let due = timers.takeDue()
            if let object, !object.begin(epoch) { return (false, due, false, mustWake()) }
            (instance.isBusy, instance.hasWorked) = (true, true)
            count.waiting -= 1
            count.running += 1
            return (true, due, reserveSpare(), mustWake())
        }
        // The last one goes here, without the monitor: what goes with it is the program's.
        instance.object = isWanted ? object : nil
        for call in due { post(call) }
        if needsSpare { startSpare() }
        if needsWake { wake() }
        guard isWanted else { return }
        callback()
        instance.setEvents()
    }

    // MARK: Timers

    /// Under the monitor: whether threads wait, and all of them for longer than until the next timer is due. Then one has
    /// to be woken. (I10.4)
    func mustWake() -> Bool {
        let next = timers.next
        guard !isWaking, !next.isNever else { return false }
        var isAsleep = false
        for instance in instances {
            guard let deadline = instance.sleepsUntil else { continue }
            if deadline <= next { return false }
            isAsleep = true
        }
        isWaking = isAsleep
        return isAsleep
    }

    /// Wakes a thread, so that it looks at the timers.
    func wake() { try? port.post() }

    /// Posts a call that has been announced.
    func post(_ call: PoolObject.Call) {
        // The port closes when nothing is outstanding: if it is closed, this call has been cancelled.
        try? port.post(bytes: call.epoch, key: call.key, operation: call.object)
    }
}
