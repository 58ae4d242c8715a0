/// The moments in the life of an operation, in the order in which they come.
///
/// Between two moments lies what the drawings colour: *posted* until the kernel has the request, *pending* until
/// the kernel is done, *queued* until a worker takes the packet, *handled* until the worker has done with it.
public enum Moment: UInt8, Sendable, CaseIterable, Comparable {
    /// The operation was given to a driver. Nothing comes after it when the post itself tells what has come of it.
    case posted
    /// The operating system has the request (Win32: `ERROR_IO_PENDING`).
    case pending
    /// The operation completed and became a packet in a port.
    case queued
    /// A worker took the packet (Win32: `GetQueuedCompletionStatus` returned).
    case dequeued
    /// The worker has handled the packet.
    case handled

    /// The earlier moment of a life is the smaller one.
    public static func < (one: Moment, other: Moment) -> Bool { one.rawValue < other.rawValue }
}

/// The colour of what waits for its turn behind the handling, and how a terminal draws it.
enum Held {
    static let name = "waits for its turn"
    static let colour = "#8c959f"
    static let glyph: Character = "░"
}

/// What an operation is in between two moments. There are four phases, and the same four colours everywhere. What has been
/// brought, and waits for its turn, has a colour of its own: see ``Recorder/held(_:_:)``.
public enum Phase: Int, Sendable, CaseIterable {
    /// From *posted* to *pending*.
    case posted
    /// From *pending* to *queued*: the operating system's time.
    case pending
    /// From *queued* to the start of its handling: the port's time.
    case queued
    /// While a worker handles the packet.
    case handled

    /// The phase's name, as a legend shows it.
    public var name: String { String(describing: self) }

    /// The phase's colour for SVG and HTML: four that people who see colours differently can tell apart, and that
    /// are readable on white and on black.
    public var colour: String {
        switch self {
        case .posted: "#cc79a7"
        case .pending: "#56b4e9"
        case .queued: "#e69f00"
        case .handled: "#00a878"
        }
    }

    /// The same colour, as an index of a terminal's 256 colours.
    var terminalColour: Int {
        switch self {
        case .posted: 175
        case .pending: 74
        case .queued: 214
        case .handled: 36
        }
    }

    /// How a terminal draws the phase, with colours or without.
    var glyph: Character {
        switch self {
        case .posted: "·"
        case .pending: "─"
        case .queued: "▒"
        case .handled: "█"
        }
    }
}
