/// What a client of this chapter's server may ask, one line each.
public enum Question: Equatable, Sendable {
    /// `hello`: answered at once, by the worker that has read it.
    case hello
    /// `primes N`: how many prime numbers there are below N. A computation: a job.
    case primes(Int)
    /// `sleep MS`: the answer comes after so many milliseconds. It blocks: a job, too.
    case sleep(milliseconds: Int)
    /// `workers N`: have N logical workers.
    case workers(Int)
    /// `stats`: what has happened so far.
    case stats

    /// The largest numbers that a stranger may ask for.
    public static let mostPrimes = 20_000_000, longestSleep = 10_000

    /// Reads a line; nil when it is none of these.
    public init?(_ line: String) {
        let words = line.split(separator: " ")
        let number = words.count == 2 ? Int(words[1]) : nil
        switch (words.first ?? "", number) {
        case ("hello", nil) where words.count == 1: self = .hello
        case ("stats", nil) where words.count == 1: self = .stats
        case ("primes", let number?) where (0...Question.mostPrimes).contains(number): self = .primes(number)
        case ("sleep", let number?) where (0...Question.longestSleep).contains(number):
            self = .sleep(milliseconds: number)
        case ("workers", let number?): self = .workers(number)
        default: return nil
        }
    }

    /// Whether it takes longer than a handler may.
    public var isWork: Bool {
        switch self {
        case .primes, .sleep: true
        case .hello, .workers, .stats: false
        }
    }
}

/// How many prime numbers there are below `limit`: by trying, so that it takes its time.
public func primes(below limit: Int) -> Int {
    var count = limit > 2 ? 1 : 0
    for candidate in stride(from: 3, to: limit, by: 2) {
        var divisor = 3
        while divisor * divisor <= candidate, candidate % divisor != 0 { divisor += 2 }
        if divisor * divisor > candidate { count += 1 }
    }
    return count
}
