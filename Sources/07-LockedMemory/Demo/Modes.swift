import Glibc
import Kernel
import LockedMemory
import LockedMemoryPitfalls
import Stage

/// What one mode has shown.
private struct Showing {
    var alone = 0
    var locked = 0
    var really = 0
    var waiting = 0
    var memory = 0
    var among = 0
    var silent = 0
    var isClean = 0

    private static let fields: [WritableKeyPath<Showing, Int> & Sendable] = [
        \.alone, \.locked, \.really, \.waiting, \.memory, \.among, \.silent, \.isClean,
    ]

    init() {}

    /// In a line, from the process that has seen it.
    var line: String { "showed " + Showing.fields.map { "\(self[keyPath: $0])" }.joined(separator: " ") }

    init?(line: Substring?) {
        let numbers = (line ?? "").split(separator: " ").dropFirst().compactMap { Int($0) }
        guard numbers.count == Showing.fields.count else { return nil }
        for (field, number) in zip(Showing.fields, numbers) { self[keyPath: field] = number }
    }
}

/// The busy clients, and how long each of their two loads lasts.
private let busy = 64
/// With fewer idle clients than this there is nothing to be seen.
private let fewest = 100
private let time = Duration.milliseconds(400)

/// Thousands of idle clients and 64 busy ones, in each of the modes.
func playModes(_ options: Stage.Options, on terminal: Terminal) throws {
    let asked = options.clients ?? 10_000
    let wanted = max(fewest, asked)
    // The idle ones are a process of their own: in this one there are descriptors for the server's ends.
    let idle = Resources.clientsThatFit(wanted, descriptorsEach: 1)
    let budget = idle * 4 / 5
    let isReal = SystemLimit.permits(budget)
    terminal.heading("\(readable(idle)) idle clients, a budget of \(readable(budget)) pages")
    if asked < fewest { terminal.say("(with fewer than \(fewest) there is nothing to be seen)") }
    if idle < wanted { terminal.say("(scaled down: there are descriptors for \(readable(idle)) clients)") }
    terminal.say(
        "A buffer is one page of \(readable(Page.size)) bytes. "
            + (isReal
                ? "What is charged is really locked (mlock)."
                : "The budget only counts: this process may not lock that much.")
            + " driver: \(options.driver)")
    terminal.say()

    var showings: [Showing] = []
    for mode in modes {
        // In a process of its own, whose memory no other mode has used before.
        let words = [showArgument, mode, "\(idle)", "\(budget)", isReal ? "1" : "0"]
        let ending = try Child.run(Child.ownPath, words + options.passedOn, within: .seconds(60))
        guard let showing = Showing(line: ending.output.split(separator: "\n").last) else {
            throw SystemError(EPROTO, attempted: "show the mode \(mode): \(ending.errors)")
        }
        showings.append(showing)
    }
    terminal.table(
        [
            "mode", "pages locked", "VmLck", "in line", "memory", "64 busy alone, /s", "among idle, /s",
            "unheard",
        ],
        zip(modes, showings).map { mode, seen in
            [
                mode, readable(seen.locked), isReal ? readable(seen.really) : "–", readable(seen.waiting),
                "\(readable(seen.memory >> 20)) MiB", readable(seen.alone), readable(seen.among),
                "\(seen.silent)",
            ]
        })
    terminal.say()
    let (buffered, zeroByte, adaptive, mixed) = (showings[0], showings[1], showings[2], showings[3])
    terminal.claim(
        "buffered: \(readable(budget)) clients lock the budget, and number \(readable(budget + 1)) is refused, as "
            + "predicted",
        holds: buffered.locked == budget && buffered.waiting == idle - budget
            && (!isReal || buffered.really == budget))
    terminal.claim(
        "buffered: who comes after that is not heard, and no client is closed",
        holds: buffered.silent == busy && buffered.isClean == 1)
    terminal.claim(
        "zero-byte: \(readable(idle)) idle clients lock 0 pages, and all busy ones are heard",
        holds: zeroByte.locked == 0 && zeroByte.really == 0 && zeroByte.silent == 0 && zeroByte.isClean == 1)
    terminal.claim(
        "adaptive: the same with many clients, and buffers with few",
        holds: adaptive.locked == 0 && adaptive.really == 0 && adaptive.silent == 0 && adaptive.isClean == 1)
    terminal.claim(
        "mixed: all are heard, and clients that say nothing lock the whole budget all the same",
        holds: mixed.locked == budget && (!isReal || mixed.really == budget) && mixed.waiting == 0
            && mixed.silent == 0 && mixed.isClean == 1)
}

private let modes = ["buffered", "zero-byte", "adaptive", "mixed"]
private let showArgument = "--show-mode"

extension Stage.Options {
    /// What a process for one mode has to know of this one's command line.
    fileprivate var passedOn: [String] { [driver.rawValue, "\(workers ?? 2)", "\(concurrency ?? 0)"] }
}

/// If this process was started to show one mode: does, and ends. To be called first in the program.
func showModeIfAsked() {
    let words = CommandLine.arguments
    let numbers = words.compactMap { Int($0) }
    guard words.count == 9, words[1] == showArgument, numbers.count == 5,
        let driver = DriverKind(rawValue: words[6])
    else { return }
    do {
        Resources.raiseDescriptorLimit(atLeast: numbers[0] + Resources.spareDescriptors)
        var choices = serverOptions(mode: words[2], driver: driver)
        choices.hub.maximumConnections = numbers[0] + 2 * busy
        choices.budgetPages = numbers[1]
        choices.locking = numbers[2] == 1 ? .system : .counted
        (choices.hub.workers, choices.hub.concurrency) = (numbers[3], numbers[4])
        print(try show(numbers[0], choices).line)
        exit(0)
    } catch {
        refuse("\(error)")
    }
}

/// A server in one mode: 64 busy clients alone, then the idle ones, then the busy ones again.
private func show(_ idle: Int, _ choices: BudgetedServer.Options) throws -> Showing {
    let server = try BudgetedServer(options: choices)
    var showing = Showing()
    let load = ClientLoad(to: server.address, connections: busy, duration: time)
    showing.alone = Int(try load.run().perSecond)
    _ = eventually { server.hub.connectionCount == 0 }

    let before = Resources.residentBytes
    let clients = try IdleClients(idle, to: server.address)
    guard eventually({ server.hub.connectionCount == idle }) else {
        throw SystemError(ETIMEDOUT, attempted: "take in \(idle) clients")
    }
    // The last one is about to be charged, and receives that were cancelled to change over are about to come back.
    _ = eventually {
        let now = server.receives.budget.counters
        return switch choices.choice {
        case .buffered: now.locked + now.waiting == idle
        case .mixed: now.locked == choices.budgetPages
        default: now.locked == 0
        }
    }
    let counters = server.receives.budget.counters
    showing.locked = counters.locked
    showing.waiting = counters.waiting
    showing.really = SystemLimit.lockedPages
    showing.memory = max(0, Resources.residentBytes - before)
    let report = try load.run()
    showing.among = Int(report.perSecond)
    showing.silent = report.silent
    let isOpen = server.hub.connectionCount >= idle && server.hub.counters.refused == 0
    clients.leave()
    showing.isClean = server.stop() && isOpen ? 1 : 0
    return showing
}
