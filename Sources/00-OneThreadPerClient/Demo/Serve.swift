import Kernel
import OneThreadPerClient
import Stage

/// Keeps a server up until Ctrl-C or SIGTERM.
func serve(_ kind: ServerKind) throws {
    let interrupt = Interrupt()
    let server = try kind.start(on: options.listenAddress, driver: options.driver)
    terminal.say("listening on \(server.address)")
    _ = interrupt.wait()
    let counters = server.counters
    server.stop()
    terminal.say(
        "\(kind.rawValue): clients served: \(counters.accepted), still connected: \(counters.present), "
            + "refused: \(counters.refused), failed: \(counters.failed); bytes echoed: \(counters.bytesEchoed)"
    )
}
