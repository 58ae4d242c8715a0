/// Why a connection is not read from at the moment. Reading goes on when no reason is left, so each that pauses can resume
/// without knowing of the others.
public struct PauseReasons: OptionSet, Sendable {
    /// One bit for each reason.
    public let rawValue: UInt8

    /// Some reasons.
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// The program wants no more at the moment.
    public static let program = PauseReasons(rawValue: 1)
    /// Too much is waiting to be sent.
    public static let sends = PauseReasons(rawValue: 2)
    /// The connection is being brought to rest: chapter 12 moves it then.
    static let rest = PauseReasons(rawValue: 8)
}
