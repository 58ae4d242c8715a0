import Servers
import WorkerPools

extension Statistics {
    /// A few lines, for the console.
    var text: String {
        func list<Key: Hashable>(_ counts: [Key: Int], _ name: (Key) -> String) -> String {
            let parts = counts.map { "\(name($0.key)) \($0.value)" }.sorted()
            return parts.isEmpty ? "none" : parts.joined(separator: ", ")
        }
        return """
            connections: \(connections) (most \(peak)), \(accepted) accepted, \(connected) made, \(reconnects) made again
            refused: \(list(refused) { $0.rawValue })
            ends: \(list(ends) { $0.description })
            messages: \(messagesIn) in, \(messagesOut) out, \(Int(messagesPerSecond)) a second; bytes: \(bytesIn) in, \
            \(bytesOut) out
            sends: \(pendingSends) under way (most of one \(peakPendingSends)), \(paused) paused now, \(pauses) pauses
            reads: \(pendingReads) pending; accepts: \(accepts.reduce(0) { $0 + $1.pending }) pending, \
            \(accepts.reduce(0) { $0 + $1.held }) with a silent client
            \(jobs?.description ?? "jobs: none")
            chunks: \(chunks?.inUse ?? 0) in use, \(chunks?.free ?? 0) free, \(chunks?.made ?? 0) made; \
            pages: \(pages?.locked ?? 0) locked (most \(pages?.peak ?? 0)), \(mode)
            files: \(filesUnderWay) under way, \(filesDone) done, \(filesFailed) failed
            acknowledged: \(acknowledged); came twice: \(repeated)
            bans: \(bans)\(bans == 0 ? "" : bansAreSilent ? ", silent" : ", by reset"); driver: \(driver)
            """
    }
}
