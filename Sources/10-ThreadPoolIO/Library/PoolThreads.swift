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

    /// Waits for packets, at most until the nearest timer is due or it has idled for too long.
    private func work(_ number: Int) {
        let instance = CallbackInstance(self)
        CallbackInstance.current = instance
        monitor.locked {
            instances.append(instance)
            look(instance)
        }
        while true {
            // Posted rather than called here: so the limit holds for timers, too, and they run side by side.
            for call in instance.due { post(call) }
            switch port.dequeue(until: instance.sleepsUntil ?? .now) {
            case .completed(let packet), .failed(let packet, _):
                handle(packet, instance)
            case .timedOut:
                if instance.idles(for: options.idleTime), end(instance, number, ifIdle: true) { return }
                monitor.locked { look(instance) }
            case .closed:
                _ = end(instance, number, ifIdle: false)
                return
            }
        }
    }

    /// Under the monitor: a thread is about to wait. It takes what is due, and will be back when more is.
    private func look(_ instance: CallbackInstance) {
        instance.due = timers.takeDue()
        instance.sleepsUntil = min(timers.next, instance.idleEnd)
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
            handleLock.locked { ended.append(number) }
            monitor.broadcast()
            // This may have been the only thread to know of the next timer.
            return (true, mustWake())
        }
        if needsWake { wake() }
        return isOver
    }

    // MARK: Packets

    /// Afterwards the thread has looked what comes next.
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
            monitor.locked {
                if packet.isPosted { isWaking = false } else { count.strays += 1 }
                look(instance)
            }
        }
    }

    /// Runs a callback, unless it has been cancelled. For that time this thread does not wait: another one does, and
    /// knows of the next timer.
    private func run(
        _ instance: CallbackInstance, _ object: PoolObject?, epoch: Int, _ callback: () -> Void
    ) {
        instance.hasWorked = true
        let (isWanted, needsSpare, needsWake) = monitor.locked {
            if let object, !object.begin(epoch) {
                look(instance)
                return (false, false, false)
            }
            instance.sleepsUntil = nil
            count.waiting -= 1
            count.running += 1
            return (true, reserveSpare(), mustWake())
        }
        if needsSpare { startSpare() }
        if needsWake { wake() }
        guard isWanted else { return }
        instance.object = object
        callback()
        instance.object = nil
        instance.setEvents()
        let isLast = monitor.locked {
            count.waiting += 1
            count.running -= 1
            count.callbacks += 1
            object?.end()
            look(instance)
            return isOver
        }
        if isLast { port.close() }
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

extension CompletionPort {
    fileprivate func dequeue(until deadline: Deadline) -> Dequeued {
        dequeue(timeout: deadline.isNever ? nil : .nanoseconds(Int64(clamping: deadline.remaining)))
    }
}
