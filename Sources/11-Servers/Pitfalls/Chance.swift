import Contexts
import Kernel
import Reordering
import Servers

/// Ends the sessions of an endpoint by chance: each after about so long, in order or with a reset. While the endpoint is stopped there
/// are none.
public final class Chance: Sendable {
    private let clock: PeriodicTask

    /// Begins, until `stop`.
    ///
    /// - Parameters:
    ///   - mean: The mean time until a session is ended.
    ///   - seed: Where chance begins. The same sessions and rounds end in the same way.
    public init(_ endpoint: Endpoint, mean: Duration, seed: UInt64) throws(SystemError) {
        let round = min(mean, .milliseconds(50))
        let random = Guarded(seed)
        clock = try PeriodicTask("chance", every: round) { _ in
            for session in endpoint.sessions {
                let bits = random.locked { random in
                    random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                    return random >> 11
                }
                guard Double(bits) / Double(1 << 53) < round / mean else { continue }
                session.disconnect(bits & 1 == 0 ? .abortive : .graceful(within: .seconds(1)))
            }
        }
    }

    /// Ends no more of them.
    public func stop() { clock.stop() }
}
