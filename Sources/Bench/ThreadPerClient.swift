import Kernel
import OneThreadPerClient

extension Echo {
    /// Chapter 00's server, for the comparison.
    static var threadPerClient: Contender {
        Contender(name: "thread per client") {
            let server = try ThreadServer(on: .loopback())
            return (server.address, { server.stop() })
        }
    }
}
