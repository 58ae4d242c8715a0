import Kernel

/// What one run of a scenario showed.
public struct Observation: Sendable {
    /// Whether the pitfall's bad outcome occurred.
    public var happened: Bool
    /// A short trace, a line each, with the measured facts.
    public var lines: [String]

    /// Makes an observation.
    public init(happened: Bool, lines: [String]) {
        self.happened = happened
        self.lines = lines
    }
}

/// A documented mistake: a scenario that can be run with the mistake and without it.
public struct Pitfall: Sendable {
    /// The name by which the tutorials, the demo's `--pitfall` and the tests know it.
    public let slug: String
    /// What goes wrong, in one plain sentence.
    public let title: String
    /// Runs the scenario with the mistake in it.
    public let broken: @Sendable (DriverKind) throws -> Observation
    /// Runs the same scenario the right way.
    public let fixed: @Sendable (DriverKind) throws -> Observation

    /// Makes a pitfall.
    public init(
        slug: String, title: String,
        broken: @escaping @Sendable (DriverKind) throws -> Observation,
        fixed: @escaping @Sendable (DriverKind) throws -> Observation
    ) {
        self.slug = slug
        self.title = title
        self.broken = broken
        self.fixed = fixed
    }
}

/// What a demo does with `--pitfall SLUG`.
public enum Pitfalls {
    /// Runs a pitfall, broken and then fixed, and prints what both showed. The claims that the first goes wrong and
    /// the second does not count for the terminal's ``Terminal/exitStatus``.
    public static func play(
        _ slug: String, from pitfalls: [Pitfall], driver: DriverKind, on terminal: Terminal
    ) {
        guard let pitfall = pitfalls.first(where: { $0.slug == slug }) else {
            let known = pitfalls.map(\.slug).joined(separator: ", ")
            terminal.claim("there is a pitfall named \(slug); there are: \(known)", holds: false)
            return
        }
        terminal.heading("\(pitfall.slug): \(pitfall.title)")
        terminal.say("driver: \(driver)")
        show("broken", terminal) {
            try pitfall.broken(driver)
        } claim: {
            ("it goes wrong", $0)
        }
        show("fixed", terminal) {
            try pitfall.fixed(driver)
        } claim: {
            ("it does not go wrong", !$0)
        }
    }

    private static func show(
        _ name: String, _ terminal: Terminal, run: () throws -> Observation, claim: (Bool) -> (String, Bool)
    ) {
        terminal.say()
        terminal.say(terminal.strong(name))
        do {
            let observation = try run()
            for line in observation.lines { terminal.say("  " + line) }
            let (words, holds) = claim(observation.happened)
            terminal.claim(words, holds: holds)
        } catch {
            terminal.claim("the scenario runs to its end: \(error)", holds: false)
        }
    }
}
