import CKernel
import Contexts
import Glibc
import Kernel
import Stage
import Testing

@Suite("Chapter 04: out of descriptors", .serialized)
struct Chapter04ContextsOutOfDescriptors {
    @Test(
        "I3.9: while no descriptor is left, clients who are inside are served, and those who wait get in later",
        arguments: DriverKind.permitted.map(\.rawValue))
    func insideAreServed(driver: String) async {
        await #expect(processExitsWith: .success) { [driver] in
            inChild {
                try serveWithoutDescriptors(DriverKind(rawValue: driver)!)
            }
        }
    }

    @Test("accepts with first data are refused: a receive takes the first bytes here")
    func firstData() {
        var options = ContextServer.Options()
        options.accepts.receiveLength = 64
        let refusal = #expect(throws: SystemError.self) { try ContextServer(options: options) }
        #expect(refusal?.code == EINVAL)
    }
}

private func serveWithoutDescriptors(_ driver: DriverKind) throws {
    // Before the first accept: a ring takes the limit from the moment of the post.
    var limit = rlimit()
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    getrlimit(resource, &limit)
    limit.rlim_cur = 200
    setrlimit(resource, &limit)
    var options = ContextServer.Options()
    options.port.driver = driver
    options.workers = 1
    let server = try ContextServer(options: options)
    let inside = try Socket.connected(to: server.address)
    #expect(inside.isAnswered("before"))
    // The sampler, the helpers and the runtime have what they need by now.
    Resources.settle()
    // Clients who have their descriptors, and are not connected yet.
    let waiting = (0..<30).map { _ in socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) }
    var taken: [Int32] = []
    while true {
        let copy = dup(0)
        guard copy >= 0 else { break }
        taken.append(copy)
    }
    for client in waiting {
        // Their port is in network order, and the address is the loopback's.
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = server.address.port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(client, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(code == 0)
    }
    #expect(eventually { server.accepts.failed > 0 && server.accepts.resting > 0 })
    let start = monotonicNanoseconds()
    let answered = (1...40).count { _ in inside.isAnswered("inside") }
    let taking = Duration.nanoseconds(Int64(monotonicNanoseconds() - start))
    #expect(answered == 40 && taking < .seconds(4), "\(answered) answers took \(taking)")
    for descriptor in taken { close(descriptor) }
    #expect(eventually { server.table.counters.opened == 31 && server.accepts.resting == 0 })
    for client in waiting { close(client) }
    #expect(inside.isAnswered("after"))
    #expect(server.stop())
}
