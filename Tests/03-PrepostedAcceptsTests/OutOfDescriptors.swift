import CKernel
import Glibc
import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage
import Testing

/// A server in a process that has no descriptor left. To be run in a process of its own.
enum OutOfDescriptors {
    static func run(_ driver: DriverKind) throws {
        // Before the first accept: a ring takes the limit from the moment of the post.
        limit(to: 128)
        var options = PrepostedServer.Options()
        options.port.driver = driver
        options.pool.initial = 10
        let server = try PrepostedServer(options: options)
        try #require(try Caller(to: server.address).isAnswered("before"))
        #expect(eventually { server.counters.connections == 0 })
        // The sampler, the helpers and the runtime have what they need by now.
        Resources.settle()
        var taken: [Int32] = []
        while true {
            let copy = dup(0)
            guard copy >= 0 else { break }
            taken.append(copy)
        }
        // One for the client, none for the server.
        close(taken.removeLast())
        let caller = try Caller(to: server.address)
        let isEarly = try caller.isAnswered("hello", within: .milliseconds(300))
        let paused = server.accepts
        // Every accept has failed and is set aside; the pauses grow, so that it is not tried without end.
        #expect(!isEarly && paused.pauses > 0 && paused.resting > 0 && paused.failed < 100, "\(paused)")
        close(taken.removeLast())
        #expect(try caller.hear(5) == "hello")
        for descriptor in taken { close(descriptor) }
        #expect(eventually { server.accepts.resting == 0 && server.accepts.pending == 10 })
        #expect(try Caller(to: server.address).isAnswered("after"))
        server.stop()
    }

    private static func limit(to descriptors: UInt) {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        getrlimit(resource, &limit)
        limit.rlim_cur = descriptors
        setrlimit(resource, &limit)
    }
}
