import CKernel
import Glibc
import Kernel

/// One option of a program: its name, what its value looks like, and what it is for.
public struct Option: Sendable {
    /// The name without its dashes.
    public let name: String
    /// What `--help` calls the value; empty for a switch.
    public let placeholder: String
    /// What it is for, in a few words.
    public let help: String
    /// Says what is wrong with a value, or nothing.
    let fault: @Sendable (String) -> String?

    /// An option whose value is a text.
    /// - Parameter fault: says what is wrong with a value; `nil` if nothing is.
    public init(
        _ name: String, _ placeholder: String, _ help: String,
        fault: @escaping @Sendable (String) -> String? = { _ in nil }
    ) {
        self.name = name
        self.placeholder = placeholder
        self.help = help
        self.fault = fault
    }

    /// A switch: an option without a value.
    public static func flag(_ name: String, _ help: String) -> Option { Option(name, "", help) }

    /// An option whose value is a whole number.
    public static func number(
        _ name: String, _ placeholder: String = "N", in range: ClosedRange<Int>, _ help: String
    ) -> Option {
        Option(name, placeholder, help) { value in
            if let number = Int(value), range.contains(number) { return nil }
            return "is no whole number from \(range.lowerBound) to \(range.upperBound)"
        }
    }

    /// An option whose value is one of a few words.
    public static func choice(_ name: String, _ words: [String], _ help: String) -> Option {
        Option(name, words.joined(separator: "|"), help) { value in
            words.contains(value) ? nil : "is none of " + words.joined(separator: ", ")
        }
    }

    /// An option whose value is the path of a file that the program will write. The folder has to be there.
    public static func output(_ name: String, _ help: String) -> Option {
        Option(name, "FILE", help) { value in
            if value.isEmpty || value.hasSuffix("/") { return "is no file" }
            let parts = value.split(separator: "/", omittingEmptySubsequences: false).dropLast()
            let folder = parts.isEmpty ? "." : parts == [""] ? "/" : parts.joined(separator: "/")
            if access(folder, W_OK | X_OK) == 0 { return nil }
            return "cannot be written: \(SystemError.text(errno)) (\(folder))"
        }
    }
}

/// The options that mean the same in all programs. Each says which of them it accepts.
extension Option {
    /// `--serve PORT`
    public static let serve = number(
        "serve", "PORT", in: 0...65_535, "keep the server up on this port (0: any free one) until Ctrl-C")
    /// `--address A`
    public static let address = Option("address", "A", "listen on this address instead of 127.0.0.1") {
        value in
        Address(value, port: 0) == nil ? "is no address in digits, such as 127.0.0.1 or ::1" : nil
    }
    /// `--poll MICROSECONDS`
    public static let poll = number(
        "poll", "MICROSECONDS", in: 0...1_000_000, "how long a worker asks again before it goes to sleep (0)")
    /// `--workers N`
    public static let workers = number("workers", in: 1...256, "how many threads take packets from the port")
    /// `--concurrency N`
    public static let concurrency = number(
        "concurrency", in: 0...256, "how many of them may run at once (0: as many as there are processors)")
    /// `--driver epoll|io_uring`
    public static let driver = choice(
        "driver", DriverKind.allCases.map(\.rawValue), "which interface of the system carries operations out")
    /// `--clients N`
    public static let clients = number("clients", in: 1...100_000, "how many clients connect")
    /// `--seconds N`
    public static let seconds = Option("seconds", "N", "how long the load runs") { value in
        if let number = Double(value), (0.1...3_600).contains(number) { return nil }
        return "is no number from 0.1 to 3600"
    }
    /// `--svg FILE`
    public static let svg = output("svg", "write the timeline as a picture")
    /// `--trace FILE`
    public static let trace = output("trace", "write the timeline for Perfetto (Chrome trace event format)")
    /// `--plain`
    public static let plain = flag("plain", "no colours; chosen by itself when the output is no terminal")
    /// `--pitfall SLUG`; a program that has pitfalls accepts it.
    static let pitfall = Option("pitfall", "SLUG", "run one pitfall, broken and then fixed")
    /// `--help`; every program accepts it.
    static let help = flag("help", "print this")
}
