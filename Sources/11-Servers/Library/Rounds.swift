import Contexts
import FileTransfer
import Kernel
import Reordering

/// What an endpoint looks at from time to time. The clocks are chapter 04's: a round that comes far too late does not judge.
enum Rounds {
    /// Lets the handler of each connection look at its limits.
    ///
    /// - Parameter thread: Is set to the number of the thread that does so.
    static func limits(
        _ options: EndpointOptions, _ hub: StreamHub, _ files: FileService?, on thread: Guarded<Int32>
    ) throws(SystemError) -> PeriodicTask {
        let round = options.limits.round
        return try PeriodicTask("limits", every: min(round, files?.round ?? round)) { now in
            thread.locked { $0 = Thread.currentID }
            hub.tick(now)
        }
    }

    /// Four times in the time that a peer may leave what was sent without any answer. (I4.9)
    static func peers(_ options: EndpointOptions, _ hub: StreamHub) throws(SystemError) -> PeriodicTask? {
        guard let unanswered = options.keepAlive?.unanswered else { return nil }
        let peers = Guarded(UnansweredPeers(limit: unanswered))
        return try PeriodicTask("peers", every: unanswered / 4) { now in
            peers.locked { peers in
                for connection in hub.connections
                where peers.isGone(connection.id, connection.socket, now: now) { connection.close(.reset) }
                peers.endRound()
            }
        }
    }
}
