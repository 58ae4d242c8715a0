import Kernel
import OneThreadPerClient
import Stage

/// Keeps a server up until Ctrl-C or SIGTERM.
func serve(_ kind: ServerKind) throws {
    let interrupt = Interrupt()
    let server = try kind.start(on: options.listenAddress, driver: options.driver)
    terminal.say("listening on \(server.address)")
    _ = interrupt.wait()
    let connected = server.counters.present
    // What is on its way when the signal comes is counted by the time that the server has stopped.
    server.stop()
    let counters = server.counters
    terminal.say(
        "\(kind.rawValue): clients served: \(counters.accepted), still connected: \(connected), "
            + "refused: \(counters.refused), failed: \(counters.failed); bytes echoed: \(counters.bytesEchoed)"
    )
}
