import Contexts
import Kernel

/// What a program may ask of a connection beside sending. From any thread.
extension StreamConnection {
    // MARK: Reading, or not

    /// Posts no further read until `resumeReading` has been called with the same reason. Nothing is lost, and nothing changes
    /// its order: what is posted already still comes, up to the pending reads; the rest waits in the socket, where it holds the
    /// other side back. An end, too, is only seen by a read.
    public func pauseReading(_ reason: PauseReasons = .program) { lock.locked { receiver.pause(reason) } }

    /// Takes a reason to pause away. When none is left, reading goes on.
    public func resumeReading(_ reason: PauseReasons = .program) {
        lock.lock()
        receiver.resume(reason)
        replan()
        leave()
    }

    /// Says that so many bytes of the stream, behind the chunk that the handler is being called with, are known to be of one
    /// kind, such as a file's: reads may grow as far as that also where they do not by themselves (`growsUnasked`). In
    /// `received` only; the call that reaches furthest counts.
    public func expect(_ bytes: Int) { lock.locked { receiver.expect(upTo: counted.bytesReceived + bytes) } }

    /// For a receive policy that has changed its mind: asks for the buffers of posted reads back, and asks the policy anew.
    /// A read that has brought bytes meanwhile keeps them. Without a lock, from any thread.
    public func reconsider() {
        lock.lock()
        if isReading { receiver.callOff(self, hub.receives) }
        replan()
        leave()
    }

    /// How a connection is ended by this side.
    public enum Disconnect: Sendable {
        /// At once. The other side is told with a reset, and what is still to be sent is lost.
        /// Win32 counterpart: `closesocket` with linger 0.
        case abortive
        /// What was accepted is sent, then this side says that it sends no more, and what still comes is received. When the
        /// other side has not ended within that time, the connection is closed.
        case graceful(within: Duration)
    }

    /// Ends the connection. The first end counts. `closed` tells when it is over.
    public func disconnect(_ way: Disconnect) {
        switch way {
        case .abortive:
            try? socket.setAbortiveClose()
            close()
        case .graceful(let time):
            finishAfterCall()
            setLimit(time, .cancelled)
        }
    }

    /// Finishes when the handler's present call is over, if one is: what it answers there is still sent.
    private func finishAfterCall() {
        lock.lock()
        mustFinish = true
        if !isBusy { finishIfAsked() }
        leave()
    }

    /// Under the lock.
    func finishIfAsked() {
        guard exchange(&mustFinish, with: false) else { return }
        sender.finish()
        finishIfDone()
    }

    /// Closes the connection after some time, unless it is over by then, or stands.
    func setLimit(_ time: Duration, _ reason: CloseReason) {
        lock.locked { limit = (Deadline.after(time).nanoseconds, reason) }
        hub.watch(self)
    }

    /// Closes it if its limit is over. False when there is nothing to be watched any more.
    func isWatched(_ now: UInt64) -> Bool {
        let limit = lock.locked { reason == nil ? self.limit : (0, .cancelled) }
        guard limit.at > 0, limit.at <= now else { return limit.at > 0 }
        close(limit.reason)
        return false
    }

    // MARK: What it has seen

    /// What its window of reads has seen.
    public var window: WindowCounters { lock.locked { windowNow } }

    var windowNow: WindowCounters {
        let (now, most, _) = receiver.waiting
        return WindowCounters(waiting: now, mostWaiting: most, early: Int(receiver.counters.early))
    }

    /// What a window of reads has seen.
    public struct WindowCounters: Sendable, Equatable {
        /// Chunks in it now.
        public var waiting = 0
        /// The most that ever were, the one whose turn it is included: never more than the pending reads. (I5.3)
        public var mostWaiting = 0
        /// Chunks that came before an earlier one.
        public var early = 0
    }

    /// Sends that are not over: contexts in use for sending, open tickets included, or what is posted, whichever is more.
    public var sendsUnderWay: Int { lock.locked { max(sender.pending, sender.posted) } }

    /// What has gone through it so far.
    public var traffic: Traffic {
        lock.locked {
            var traffic = counted
            traffic.pendingSends = sender.pending
            traffic.pendingReads = receiver.posted + (receiver.isWaiting ? 1 : 0)
            return traffic
        }
    }

    /// What is added to the hub's sums when it is over.
    var totals: (WindowCounters, Traffic, ReadCounters) {
        lock.locked {
            (windowNow, counted, ReadCounters(receiver.counters))
        }
    }
}
