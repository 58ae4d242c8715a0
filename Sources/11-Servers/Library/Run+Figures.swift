import Kernel
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
        now.accepts = hub.listening.map(\.accepts)
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
