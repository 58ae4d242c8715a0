import Glibc
import Kernel
import OneThreadPerClient
import OneThreadPerClientPitfalls
import Stage

/// A server in a process of its own, so that the threads, memory and time of that process are the server's.
final class MeasuredServer {
    /// What the process takes.
    struct Figures {
        var threads = 0
        /// Bytes of memory in use.
        var resident = 0
    }

    static let word = "measured"
    /// An answer of the child: one number or two, in so many characters.
    private static let answerLength = 64
    /// A thousand threads take their time to end beside busy programs; nothing is proved by hurrying them.
    private static let patience = Duration.seconds(60)

    let address: Address
    private let child: Child
    private let questions: Caller

    init(_ kind: ServerKind, driver: DriverKind) throws(SystemError) {
        child = try Child(Child.ownPath, [Self.word, kind.rawValue, driver.rawValue])
        guard let line = child.line(startingWith: "ports ", within: Self.patience),
            let ports = Optional(line.split(separator: " ").compactMap { UInt16($0) }), ports.count == 2
        else { throw SystemError(ETIMEDOUT, attempted: "start a server in a process of its own") }
        address = .loopback(port: ports[0])
        questions = try Caller(to: .loopback(port: ports[1]))
    }

    /// What the server takes now.
    func figures() throws(SystemError) -> Figures {
        let numbers = try ask("figures", 2)
        return Figures(threads: numbers[0], resident: numbers[1])
    }

    /// The share of a processor that the server uses while nobody says anything, measured for a quarter of a second.
    func idleShare() throws(SystemError) -> Double { Double(try ask("idle", 1)[0]) / 10_000 }

    private func ask(_ question: String, _ count: Int) throws(SystemError) -> [Int] {
        try questions.say(String(question.first!))
        let numbers = try questions.hear(Self.answerLength, within: Self.patience)?.split(separator: " ")
            .compactMap { Int($0) }
        guard let numbers, numbers.count == count else {
            throw SystemError(EPIPE, attempted: "ask a server for its \(question)")
        }
        return numbers
    }

    /// Lets the server stop. False when it did not stop in time, or not in good order.
    func end() -> Bool {
        questions.leave()
        return child.wait(within: Self.patience).status == 0
    }

    /// The child's side: serves, and answers questions, until the one who asks hangs up.
    static func beOne(_ kind: String, _ driver: String) -> Never {
        do {
            guard let kind = ServerKind(rawValue: kind), let driver = DriverKind(rawValue: driver) else {
                exit(2)
            }
            Resources.raiseDescriptorLimit()
            let server = try kind.start(driver: driver)
            let listener = try Socket.listener(on: .loopback())
            let ports = "ports \(server.address.port) \(try listener.localAddress.port)\n"
            _ = ports.withCString { write(STDOUT_FILENO, $0, strlen($0)) }
            try listener.setBlocking(true)
            guard let socket = try listener.acceptNow() else { exit(1) }
            let asking = Caller(over: socket)
            while let question = try asking.hear(1, within: .seconds(60)) {
                let answer =
                    question == "i"
                    ? "\(Int(Idle.share(over: .milliseconds(250)) * 10_000))"
                    : "\(Resources.threads) \(Resources.residentBytes)"
                try asking.say(answer + String(repeating: " ", count: answerLength - answer.count))
            }
            server.stop()
            exit(0)
        } catch {
            refuse("\(error)")
        }
    }
}
