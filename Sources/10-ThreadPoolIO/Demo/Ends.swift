import Glibc
import Kernel
import Stage
import ThreadPoolIO
import ThreadPoolIOPitfalls

/// The server, ended again and again with a hundred clients in every state.
func playEnds(_ options: Stage.Options, on terminal: Terminal) throws {
    let (times, clients) = (10, min(options.clients ?? 100, 1_000))
    terminal.heading("A server that ends well, \(times) times, with \(clients) clients each")
    terminal.say("Silent, talking, in the middle of a line, not reading, leaving, reset, still on")
    terminal.say("their way in: the server is stopped at some moment, and leaves nothing.")
    terminal.say()
    var (accepted, longest, left) = (0, Duration.zero, 0)
    for seed in 1...times {
        let report = try PoolServerEnd.run(options.driver, seed: seed, clients: clients)
        accepted += report.accepted
        longest = max(longest, report.time)
        left += report.left
        terminal.status("\(seed) of \(times)")
    }
    terminal.status(nil)
    terminal.table(
        ["ended", "clients taken in", "longest end", "threads, callbacks, clients left"],
        [["\(times)", "\(accepted)", readable(longest), "\(left)"]])
    terminal.say()
    terminal.claim("it ended \(times) times, and nothing was left", holds: left == 0 && accepted > 0)
}
