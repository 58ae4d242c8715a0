import Kernel
import ServersPitfalls
import Stage

/// A whole server with everybody who may come, and its end at any moment (chapter 11).
enum ServerStress {
    /// How many are there at a time.
    private static let clients = 1_000
    private static let moments = 200

    /// Clients that leave at random and come back, files and floods among them, half a minute on each driver.
    @Sendable static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        Resources.settle()
        for driver in DriverKind.permitted {
            let report = try Crowd.run(
                driver, clients: clients, for: Stress.time(unlessTold: .seconds(30)))
            terminal.say("\(driver): \(report)")
            for fault in report.faults { terminal.say("  \(fault)") }
            holds = report.faults.isEmpty && holds
        }
        return holds
    }

    /// Stopped while each of 200 messages is being handled: everything comes back.
    @Sendable static func stop(_ terminal: Terminal) throws -> Bool {
        var holds = true
        Resources.settle()
        for driver in DriverKind.permitted {
            let seen = try ShutdownUnderLoad.stop(driver, moments: moments)
            for line in seen.lines { terminal.say("\(driver): \(line)") }
            holds = !seen.happened && holds
        }
        return holds
    }
}
