import Glibc
import Kernel
import PrepostedAccepts
import PrepostedAcceptsPitfalls
import Stage
import Testing

/// Loads whose traces are counted. Each is to be run in a process of its own.
enum ManyClients {
    static func run(_ driver: DriverKind) throws {
        Resources.raiseDescriptorLimit()
        var options = PrepostedServer.Options()
        options.port.driver = driver
        options.pool.initial = 10
        options.pool.lookInterval = .milliseconds(50)
        // On a busy machine two thousand take their time to connect, and those who came first are not to be swept.
        options.pool.silenceLimit = .seconds(30)
        let server = try PrepostedServer(options: options)
        // The first rounds make what stays: states of handles, the heap.
        for _ in 0..<3 {
            try inTurn(isSanitized ? 100 : 500, server)
            try atOnce(isSanitized ? 200 : 2_000, server)
            try settle(server)
        }
        let descriptors = Resources.openDescriptors
        var memory = Resources.residentBytes
        var growth = 1.0
        // What leaks does so every time; a heap that had not yet seen its worst moment grows once.
        for _ in 0..<3 where growth > 0.01 {
            try inTurn(isSanitized ? 1_000 : 10_000, server)
            try atOnce(isSanitized ? 200 : 2_000, server)
            try settle(server)
            #expect(Resources.openDescriptors == descriptors)
            growth = isSanitized ? 0 : Double(Resources.residentBytes - memory) / Double(memory)
            memory = Resources.residentBytes
        }
        #expect(growth <= 0.01, "memory grew by \(growth * 100) %")
        #expect(server.accepts.shortages > 0 && server.accepts.peak > 10)
        server.stop()
    }

    private static func inTurn(_ count: Int, _ server: PrepostedServer) throws {
        for _ in 0..<count { try serve(Caller(to: server.address), server) { try $0.isAnswered("hello") } }
    }

    /// All are connected before the first one speaks.
    private static func atOnce(_ count: Int, _ server: PrepostedServer) throws {
        let callers = try Caller.several(count, to: server.address)
        for caller in callers { try? caller.say("hello") }
        for caller in callers { try serve(caller, server) { try $0.hear(5) == "hello" } }
    }

    /// On a busy machine the pool may think for a moment that nobody comes any more. An accept that it cancels when its
    /// client comes takes that client with it: such a one calls again.
    private static func serve(
        _ caller: Caller, _ server: PrepostedServer, _ isServed: (Caller) throws -> Bool
    ) throws {
        called += 1
        defer { caller.socket.close() }
        if (try? isServed(caller)) == true { return }
        calledAgain += 1
        let again = try Caller(to: server.address)
        defer { again.socket.close() }
        try #require(try again.isAnswered("hello"), "a client was not served twice in a row")
        // One in a hundred at most: without the care that `shrink` takes it would be every client of a burst's end.
        try #require(calledAgain <= 20 + called / 100, "clients that were not served")
    }

    /// In this process, by the one thread that runs the load.
    nonisolated(unsafe) private static var (called, calledAgain) = (0, 0)

    /// Nobody is connected, and the pool is as large as in the beginning.
    private static func settle(_ server: PrepostedServer) throws {
        let isSettled = eventually(within: Gate.patience * 3) {
            server.counters.connections == 0 && server.accepts.pending == 10
        }
        try #require(isSettled, "\(server.counters) \(server.accepts)")
        Resources.settle()
    }

    static func stopUnderLoad(_ driver: DriverKind) throws {
        Resources.raiseDescriptorLimit()
        var before = (0, 0)
        for round in 0..<(isSanitized ? 6 : 21) {
            // The first round starts what lasts.
            if round == 1 {
                Resources.settle()
                before = (Resources.openDescriptors, Resources.threads)
            }
            var options = PrepostedServer.Options()
            options.port.driver = driver
            options.workers = 2
            // In turn with and without first data, so that accepts complete at once and late.
            options.pool.receiveLength = round % 2 == 0 ? 0 : 64
            let server = try PrepostedServer(options: options)
            let address = server.address
            let half = Gate(count: 10 + round * 4)
            let load = startThread("burst") {
                var callers: [Caller] = []
                for number in 0..<100 {
                    guard let caller = try? Caller(to: address) else { break }
                    callers.append(caller)
                    if number % 3 > 0 { try? caller.say("hello") }
                    half.open()
                }
                for caller in callers {
                    // Whose handshake was under way when the listener closed is forgotten by the system itself,
                    // and learns it from the answer to its first word.
                    if !caller.isEnded(within: .milliseconds(500)) { try? caller.say("hello?") }
                    #expect(caller.isEnded())
                }
                for caller in callers { caller.socket.close() }
            }
            half.pass(within: .seconds(2))
            server.stop()
            load.join()
            #expect(server.accepts.pending == 0 && server.counters.connections == 0)
        }
        let isClean = eventually {
            Resources.openDescriptors <= before.0 && Resources.threads <= before.1
        }
        #expect(isClean, "\(before) before, \(Resources.threads) threads now, \(Resources.whatIsOpen)")
    }
}
