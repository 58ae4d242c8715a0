import Kernel
import PrepostedAccepts
import Reordering
import Synchronization

/// What has happened so far.
extension Run {
    var statistics: Statistics {
        var now = Statistics()
        let accounts = gate.now
        (now.connections, now.peak) = (accounts.places, accounts.peak)
        (now.accepted, now.connected) = (accounts.accepted, accounts.connected)
        (now.refused, now.ends) = (accounts.refused, accounts.ends)
        let streams = hub.counters
        (now.bytesIn, now.bytesOut) = (streams.traffic.bytesReceived, streams.traffic.bytesSent)
        (now.chunks, now.pendingReads) = (streams.chunks, streams.traffic.pendingReads)
        for listener in hub.listening { now.accepts.add(listener.accepts) }
        now.messagesIn = ledger.messages
        let sessions = registry.snapshot()
        let open = sessions.reduce(0) { $0 + $1.messagesOut.load(ordering: .relaxed) }
        now.pendingSends = sessions.reduce(0) { $0 + $1.sendsUnderWay }
        let moment = monotonicNanoseconds()
        past.locked { past in
            now.messagesOut = past.messagesOut + open
            let all = now.messagesIn + now.messagesOut
            if moment - past.sample.at >= 1_000_000_000 {
                past.rate =
                    past.sample.at == 0
                    ? 0 : Double(all - past.sample.messages) * 1e9 / Double(moment - past.sample.at)
                past.sample = (moment, all)
            }
            now.messagesPerSecond = past.rate
        }
        now.peakPendingSends = mostUnderWay.load(ordering: .relaxed)
        (now.paused, now.pauses) = (pausedNow.load(ordering: .relaxed), pauses.load(ordering: .relaxed))
        (now.jobs, now.pages, now.mode) = (jobs.counters, receives.budget.counters, receives.mode)
        now.filesUnderWay = filesNow.load(ordering: .relaxed)
        now.filesDone = filesDone.load(ordering: .relaxed)
        now.filesFailed = filesFailed.load(ordering: .relaxed)
        now.acknowledged = acknowledgements.load(ordering: .relaxed)
        (now.repeated, now.reconnects) = (
            repeats.load(ordering: .relaxed), reconnects.load(ordering: .relaxed)
        )
        (now.bans, now.bansAreSilent) = (gate.bans.ranges.count, silentBans.load(ordering: .relaxed))
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
