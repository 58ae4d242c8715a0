import Glibc
import Kernel
import LockedMemory
import Stage
import Timeline

/// A few clients, drawn: the third one makes the server change over, and the receives of the first two come back.
func drawChange(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Three clients, drawn: the third makes the mode change")
    var choices = serverOptions(options, nil)
    choices.budgetPages = 16
    choices.hub.accepts.initial = 1
    choices.hub.accepts.lowWater = 0
    choices.choice = .adaptive(ReceiveThresholds(zeroByteFrom: 3, bufferedUpTo: 1))
    Recorder.start()
    let server = try BudgetedServer(options: choices)
    var clients: [Socket] = []
    var modes: [ReceiveMode] = []
    for number in 1...3 {
        clients.append(try Socket.connected(to: server.address))
        _ = eventually { server.hub.connectionCount == number }
        usleep(2_000)
        modes.append(server.receives.mode)
    }
    let budget = server.receives.budget
    _ = eventually { budget.counters.locked == 0 }
    let locked = budget.counters.locked
    let word = [UInt8](repeating: 7, count: 64)
    for client in clients { _ = try word.withUnsafeBytes { try client.sendNow($0) } }
    let isHeard = eventually { server.hub.counters.traffic.sends == 3 }
    usleep(2_000)
    let isClean = server.stop()
    let recording = Recorder.stop()
    terminal.draw(recording)
    terminal.claim(
        "two clients have buffers; with the third none has, and all are heard",
        holds: modes == [.buffered, .buffered, .zeroByte] && locked == 0 && isHeard && isClean)
    try options.save(
        recording, title: "Three clients: the third makes the mode change",
        description: "The receives with a buffer are cancelled; receives without a buffer take their place.")
}
