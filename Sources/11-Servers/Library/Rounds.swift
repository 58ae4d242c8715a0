import Contexts
import FileTransfer
import Kernel
import PrepostedAccepts
import Reordering
import ThreadPoolIO

/// The clock of an endpoint: one timer of chapter 10, set while there is a connection. It looks at all of them, and the handler
/// of each decides. An endpoint without connections sleeps.
final class Rounds: @unchecked Sendable {
    private let hub: StreamHub
    private let period: Duration
    private let timer: Guarded<PoolTimer?>
    private let state: Guarded<State>
    private let unanswered: Duration?

    private struct State {
        var isSet = false, isLooking = false
        var rounds: JudgingRounds
        var last: UInt64 = 0
        var peers: UnansweredPeers?
        var peersAt: UInt64 = 0
        /// The mean time until a connection is ended by chance, and what chance has come to.
        var chance: (mean: Duration, seed: UInt64)?
    }

    init(_ options: EndpointOptions, _ hub: StreamHub, _ files: FileService?, _ pool: ThreadPool) {
        self.hub = hub
        let limits = [options.limits.round, files?.round].compactMap { $0 }
        period = limits.min()!
        unanswered = options.keepAlive?.unanswered
        state = Guarded(
            State(
                rounds: JudgingRounds(every: period), peers: unanswered.map { UnansweredPeers(limit: $0) },
                chance: options.randomDisconnect))
        timer = Guarded(nil)
        timer.locked { $0 = PoolTimer(pool) { [weak self] _ in self?.look() } }
    }

    /// There is a connection.
    func set() {
        let isFirst = state.locked { state in
            defer { state.isSet = true }
            if !state.isSet { state.last = monotonicNanoseconds() }
            return !state.isSet
        }
        if isFirst { try? timer.locked { $0 }?.set(after: period, period: period) }
    }

    /// A round. One that comes far too late only lets the workers look at what has come. (I3.11)
    private func look() {
        let now = monotonicNanoseconds()
        let (judges, isOurs) = state.locked { state in
            // One thread at a time: a round may take longer than the time to the next.
            guard !state.isLooking else { return (false, false) }
            state.isLooking = true
            defer { state.last = now }
            return (state.rounds.mayJudge(after: state.last, at: now), true)
        }
        guard isOurs else { return }
        if judges {
            hub.tick(now)
            lookForTheDead(now)
            leaveSomeToChance()
        }
        let isIdle = state.locked { state in
            state.isLooking = false
            // Whoever comes from here on sets it again.
            if hub.connectionCount == 0 { state.isSet = false }
            return !state.isSet
        }
        guard isIdle else { return }
        timer.locked { $0 }?.cancel()
        if hub.connectionCount > 0 { set() }
    }

    /// Four times in the time that a peer may leave what was sent without any answer. (I4.9)
    private func lookForTheDead(_ now: UInt64) {
        guard let unanswered else { return }
        let isDue = state.locked { state in
            defer { if now >= state.peersAt { state.peersAt = now + UInt64(unanswered / .nanoseconds(4)) } }
            return now >= state.peersAt
        }
        guard isDue, var peers = state.locked({ $0.peers }) else { return }
        for connection in hub.connections where peers.isGone(connection.id, connection.socket, now: now) {
            connection.close(.reset)
        }
        peers.endRound()
        state.locked { $0.peers = peers }
    }

    func setChance(_ chance: (mean: Duration, seed: UInt64)?) { state.locked { $0.chance = chance } }

    private func leaveSomeToChance() {
        guard let mean = state.locked({ $0.chance?.mean }) else { return }
        let share = min(1, period / mean)
        for connection in hub.connections {
            let bits = state.locked { state in
                let next = (state.chance?.seed ?? 0) &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                state.chance?.seed = next
                return next >> 11
            }
            guard Double(bits) / Double(1 << 53) < share else { continue }
            connection.disconnect(bits & 1 == 0 ? .abortive : .graceful(within: .seconds(1)))
        }
    }

    func stop() {
        // The timer refers to the pool, and the pool to what is set.
        let last = timer.locked { timer in exchange(&timer, with: nil) }
        last?.cancel()
    }
}
