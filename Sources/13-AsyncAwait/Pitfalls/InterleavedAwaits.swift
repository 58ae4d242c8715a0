import AsyncAwait
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: an actor, and so one caller at a time, it seems. But at each `await` another one gets in.
private actor BrokenSpeaker {
    private let socket: Socket
    private let executor: PortExecutor

    init(_ socket: Socket, _ executor: PortExecutor) {
        self.socket = socket
        self.executor = executor
    }

    func say(_ head: String, _ body: String, between: @Sendable () async -> Void) async {
        await send(head)
        await between()
        await send(body)
    }

    private func send(_ text: String) async {
        let operation = AwaitedOperation(on: executor)
        let count = (try? operation.fill(Array(text.utf8))) ?? 0
        try? await socket.send(from: operation, count: count)
    }
}

/// Messages of two tasks are mixed on one connection.
public enum InterleavedAwaits {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "interleaved-awaits",
        title: "an actor sends a message with two awaits, and another task's message gets in between",
        broken: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            let speaker = BrokenSpeaker(pair.server, executor)
            let (isBetween, hasSpoken) = (Gate(), Latch())
            let first = executor.start {
                await speaker.say("<one:", "one>") {
                    isBetween.open()
                    await hasSpoken.wait()
                }
            }
            isBetween.pass()
            let second = executor.start { await speaker.say("<two:", "two>") {} }
            let isBack = second.over.pass(within: .seconds(5))
            hasSpoken.open()
            first.over.pass()
            let heard = try pair.client.hear(18)
            executor.stop()
            return Observation(happened: isBack && heard != whole, lines: ["the client hears: \(heard)"])
        },
        fixed: { driver in
            let executor = try makeExecutor(driver)
            let pair = try Pair()
            let connection = try executor.adopt(pair.server)
            let second = Latch()
            let speaking = executor.start {
                _ = try? await connection.use { (connection) async throws(SystemError) in
                    // A message is one call, and a place in the connection's one queue.
                    try await connection.send(Array("<one:one>".utf8))
                    await withTaskGroup { group in
                        for number in 0..<30 {
                            group.addTask { try? await connection.send(message(number)) }
                        }
                    }
                    second.open()
                }
            }
            let heard = try pair.client.hear(9 + 30 * 9)
            let messages = heard.split(separator: ">").map { $0 + ">" }
            try pair.client.shutDownSending()
            speaking.over.pass()
            executor.stop()
            let wanted = Set(["<one:one>"] + (0..<30).map { String(decoding: message($0), as: UTF8.self) })
            return Observation(
                happened: messages.first != "<one:one>" || Set(messages.map(String.init)) != wanted
                    || messages.count != 31,
                lines: [
                    "one task, and then 30 at once, send on one connection: "
                        + "\(Set(messages.map(String.init)).intersection(wanted).count) of 31 messages are whole"
                ])
        })

    private static let whole = "<one:one><two:two>"

    private static func message(_ number: Int) -> [UInt8] {
        let digits = "\(100 + number)"
        return Array("<\(digits):\(digits)>".utf8)
    }
}
