import Glibc

let usage = """
    usage: tour [CHAPTER…] [--list] [--plain] [--limit SECONDS] [--help]

    Plays every chapter's demonstration in order, or the chapters named: 2, 02 or 02-completion-ports.
      --list            names the chapters and ends
      --plain           no colour and no cursor movement
      --limit SECONDS   how long one chapter may take, 1 to 3600 (60)
    The exit status is 0 only if every demonstration held what it claims.
    """

/// Writes at once, so that the lines stand in order between those of the programs that are run.
func say(_ line: String, to descriptor: Int32 = STDOUT_FILENO) {
    (line + "\n").withCString { _ = write(descriptor, $0, strlen($0)) }
}

func refuse(_ complaint: String) -> Never {
    say("tour: \(complaint)", to: STDERR_FILENO)
    exit(2)
}

// MARK: What is wanted

var stops: [Stop] = []
var isPlain = isatty(STDOUT_FILENO) == 0 || getenv("NO_COLOR") != nil
var passed: [String] = []
var limit = 60
var words = CommandLine.arguments.dropFirst()
while let word = words.popFirst() {
    switch word {
    case "--help", "-h":
        say(usage)
        exit(0)
    case "--list":
        for stop in Stop.all {
            say("\(stop.number) · \(stop.title): \(stop.sight)\n     swift run \(stop.product)")
        }
        exit(0)
    case "--plain":
        isPlain = true
        passed = ["--plain"]
    case "--limit":
        guard let text = words.popFirst(), let seconds = Int(text), (1...3600).contains(seconds) else {
            refuse("--limit wants a number of seconds from 1 to 3600")
        }
        limit = seconds
    case _ where word.hasPrefix("-"):
        refuse("unknown option \(word); try --help")
    default:
        guard let stop = Stop.all.first(where: { $0.isCalled(word) }) else {
            refuse("there is no chapter \(word); try --list")
        }
        stops.append(stop)
    }
}
if stops.isEmpty { stops = Stop.all }

// MARK: The tour

/// The folder of this program, where the build puts the others too.
let folder: String = {
    var path = [CChar](repeating: 0, count: Int(PATH_MAX))
    guard readlink("/proc/self/exe", &path, path.count - 1) > 0 else { refuse("cannot find its own program") }
    return String(cString: dirname(&path))
}()

@MainActor func bold(_ text: String) -> String { isPlain ? text : "\u{1b}[1m\(text)\u{1b}[0m" }

func seconds(_ duration: Duration) -> String {
    "\((duration / .milliseconds(100)).rounded() / 10) s"
}

@MainActor func verdict(_ ending: Ending) -> String {
    switch ending {
    case .exited(0): "held"
    case .exited(let status): "FAILED with exit status \(status)"
    case .signalled(let signal): "FAILED: ended by signal \(signal)"
    case .tooLong: "FAILED: no end within \(limit) s, and was stopped"
    case .interrupted: "interrupted"
    case .notStarted(let reason): "FAILED: could not be started: \(reason)"
    }
}

let program = Program()
let clock = ContinuousClock()
var summary: [String] = []
var failures = 0
for (place, stop) in stops.enumerated() {
    if place > 0 { say("") }
    say(bold("== \(stop.number) · \(stop.title): \(stop.sight)"))
    say("")
    var ending = Ending.exited(0)
    let time = clock.measure {
        ending = program.run("\(folder)/\(stop.product)", passed, limit: .seconds(limit))
    }
    if case .interrupted(let signal) = ending {
        say("\ntour: interrupted in chapter \(stop.number)", to: STDERR_FILENO)
        exit(128 + signal)
    }
    if ending != .exited(0) { failures += 1 }
    let line = "\(stop.number) · \(stop.title): \(verdict(ending)), \(seconds(time))"
    say(bold("\n== \(line)"))
    summary.append(line)
}

say("")
for line in summary { say(line) }
let held = stops.count - failures
say(bold("the tour: \(held) of \(stops.count) held"))
exit(failures == 0 ? 0 : 1)
