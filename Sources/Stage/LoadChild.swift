import Glibc
import Kernel

/// A load in a process of its own, so that the clients' descriptors, memory and processor time are not the server's.
extension ClientLoad {
    /// Tells a program that it is such a process.
    static let childArgument = "--load-child"

    /// Runs the load in a child process and returns when it is over.
    /// - Parameter executable: a program that begins with ``Options/ofThisProgram(_:)``; this one, unless told otherwise.
    public func runInChild(of executable: String = Child.ownPath) throws(Failure) -> Report {
        let limit = connectLimit + duration + .seconds(10)
        let ending: Child.Ending
        do {
            ending = try Child.run(executable, [ClientLoad.childArgument] + arguments, within: limit)
        } catch {
            throw .system(error)
        }
        if ending.timedOut { throw .child("load: the child process did not end within \(limit)") }
        let lastLine = ending.output.split(separator: "\n").last ?? ""
        if ending.status == 0, let report = Report(line: lastLine) { return report }
        throw .child(
            ending.lastWords ?? "load: the child process ended with \(ending.status) and said nothing")
    }

    /// Whether a load belongs in a child process.
    public var belongsInChild: Bool { connections > ClientLoad.connectionsInProcess }

    /// If this process was started as such a child: runs the load and ends.
    static func runIfChild() {
        guard CommandLine.arguments.dropFirst().first == childArgument else { return }
        guard let load = ClientLoad(arguments: Array(CommandLine.arguments.dropFirst(2))) else {
            refuse("load: \(childArgument) is for this package's own use")
        }
        do {
            _ = writeAll(STDOUT_FILENO, try load.run().line + "\n")
            exit(0)
        } catch {
            fail("\(error)")
        }
    }

    /// The load in words for a child's command line.
    var arguments: [String] {
        [
            server.host, "\(server.port)", "\(connections)", "\(messageSize)",
            "\(Int(duration / .nanoseconds(1)))",
            "\(roundTripsEach ?? 0)", "\(Int(connectLimit / .nanoseconds(1)))",
            "\(connectionsPerAddress)", "\(framesEach)",
        ]
    }

    /// Takes back what ``arguments`` said.
    init?(arguments: [String]) {
        let numbers = arguments.dropFirst().compactMap { Int($0) }
        guard arguments.count == 9, numbers.count == 8, let port = UInt16(exactly: numbers[0]),
            let server = Address(arguments[0], port: port)
        else { return nil }
        self.init(
            to: server, connections: numbers[1], messageSize: numbers[2], duration: .nanoseconds(numbers[3]),
            roundTripsEach: numbers[4] == 0 ? nil : numbers[4], connectLimit: .nanoseconds(numbers[5]))
        connectionsPerAddress = numbers[6]
        framesEach = numbers[7]
    }
}

extension ClientLoad.Report {
    /// The report in a line, for the parent process.
    var line: String {
        let times = "\(Int(elapsed / .nanoseconds(1))) \(Int(processorTime / .nanoseconds(1)))"
        return "load \(roundTrips) \(silent) \(times) \(latency.line)"
    }

    /// Takes back what ``line`` said.
    init?(line: Substring) {
        let parts = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: false)
        let numbers = parts.dropFirst().prefix(4).compactMap { Int($0) }
        guard parts.count == 6, parts[0] == "load", numbers.count == 4,
            let latency = LatencyHistogram(line: parts[5])
        else { return nil }
        self.init()
        roundTrips = numbers[0]
        silent = numbers[1]
        elapsed = .nanoseconds(numbers[2])
        processorTime = .nanoseconds(numbers[3])
        self.latency = latency
    }
}
