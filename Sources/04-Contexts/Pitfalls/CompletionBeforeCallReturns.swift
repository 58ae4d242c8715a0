import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: posts, and then writes into the context who is to be told.
final class BrokenPoster: Overlapped, @unchecked Sendable {
    let owner = Guarded<String?>(nil)
    private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 1)

    deinit { memory.deallocate() }

    func post(on socket: Socket, for name: String, meanwhile: () -> Void) throws(SystemError) {
        try socket.receive(self, into: memory)
        meanwhile()
        owner.locked { $0 = name }
    }
}

/// The completion is handled before the posting call has returned.
public enum CompletionBeforeCallReturns {
    static let clients = 400

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "completion-before-call-returns",
        title: "another worker handles the completion before the poster has filled in the context",
        broken: { driver in
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 1)
            try pair.client.say("hello")
            let handled = Gate()
            let found = Guarded<[String?]>([])
            let workers = try WorkerGroup(1, on: port) { packet, _ in
                guard let context = packet.operation as? BrokenPoster else { return }
                let owner = context.owner.locked { $0 }
                found.locked { $0.append(owner) }
                handled.open()
            }
            // The bytes are there, the other worker is quick, and this thread has just used up its time.
            try BrokenPoster().post(on: pair.server, for: "client 1") { handled.pass() }
            workers.stop()
            let owners = found.locked { $0 }
            return Observation(
                happened: owners == [nil],
                lines: [
                    "the poster had not come back from its call when the packet was handled",
                    "the owner, as the worker found it: \(owners.first?.flatMap { $0 } ?? "nobody")",
                ])
        },
        fixed: { driver in
            // Every connection's bytes are there before its first receive is posted: packets come at once, on two other
            // threads, while the posts are being made.
            let port = try CompletionPort.on(driver)
            let strange = Counter()
            let echoed = Counter()
            let table = ConnectionTable(port: port)
            let workers = try WorkerGroup(2, on: port) { packet, error in
                if !table.handle(packet, error) { strange.add() }
            }
            var pairs: [Pair] = []
            for _ in 1...clients {
                let pair = try Pair()
                try pair.client.say("hello")
                try table.admit(pair.server)
                pairs.append(pair)
            }
            for pair in pairs {
                // One that is not answered says enough.
                guard try pair.client.hear(5) == "hello" else { break }
                echoed.add()
            }
            let isClean = table.close()
            workers.stop()
            return Observation(
                happened: strange.value > 0 || echoed.value != clients || !isClean,
                lines: [
                    "\(clients) connections whose bytes had come before the first receive was posted",
                    "contexts that were found unfinished: \(strange.value); answers: \(echoed.value)",
                ])
        })
}
