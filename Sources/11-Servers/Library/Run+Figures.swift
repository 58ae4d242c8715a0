import Kernel
import PrepostedAccepts
import Reordering
import Synchronization

/// What has happened so far.
extension Run {
    var statistics: Statistics {
        let sessions = registry.snapshot()
        var now = gate.now
        let streams = hub.counters
        (now.bytesIn, now.bytesOut) = (streams.traffic.bytesReceived, streams.traffic.bytesSent)
        (now.chunks, now.pendingReads) = (streams.chunks, streams.traffic.pendingReads)
        for listener in hub.listening { now.accepts.add(listener.accepts) }
        now.messagesIn = ledger.messages
        now.messagesOut += sessions.reduce(0) { $0 + $1.messagesOut.load(ordering: .relaxed) }
        now.pendingSends = sessions.reduce(0) { $0 + $1.sendsUnderWay }
        let (moment, all) = (monotonicNanoseconds(), now.messagesIn + now.messagesOut)
        now.messagesPerSecond = sample.locked { last in
            if moment - last.at >= 1_000_000_000 {
                let rate = Double(all - last.messages) * 1e9 / Double(moment - last.at)
                last = (moment, all, last.at == 0 ? 0 : rate)
            }
            return last.rate
        }
        now.peakPendingSends = mostUnderWay.load(ordering: .relaxed)
        now.acknowledged = acknowledged.load(ordering: .relaxed)
        (now.jobs, now.pages, now.mode) = (jobs.counters, receives.budget.counters, receives.mode)
        now.bans = gate.bans.ranges.count
        (now.driver, now.alive) = (hub.driverKind, registry.counters.alive)
        return now
    }
}

extension AcceptPool.Counters {
    /// Those of several listeners together.
    mutating func add(_ other: AcceptPool.Counters) {
        pending += other.pending
        held += other.held
        resting += other.resting
        fresh += other.fresh
        peak += other.peak
        posted += other.posted
        accepted += other.accepted
        empty += other.empty
        swept += other.swept
        failed += other.failed
        refusedPosts += other.refusedPosts
        shortages += other.shortages
        pauses += other.pauses
        reused += other.reused
    }
}
