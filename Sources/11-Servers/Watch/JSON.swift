/// A value as the page's script and other programs read it. An object is written as a dictionary: `["name": .text("a server")]`.
public enum JSON: Sendable, ExpressibleByDictionaryLiteral, CustomStringConvertible {
    case number(Int)
    case text(String)
    case list([JSON])
    /// Names with their values, in this order.
    case object([(name: String, value: JSON)])

    /// An object.
    public init(dictionaryLiteral members: (String, JSON)...) {
        self = .object(members.map { ($0, $1) })
    }

    /// On one line.
    public var description: String {
        switch self {
        case .number(let number): "\(number)"
        case .text(let text): JSON.quoted(text)
        case .list(let values): "[" + values.map(\.description).joined(separator: ",") + "]"
        case .object(let members):
            "{" + members.map { "\(JSON.quoted($0.name)):\($0.value)" }.joined(separator: ",") + "}"
        }
    }

    /// What could end a text, a line or a tag becomes an escape: whoever sent it, it is shown and not obeyed.
    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case "<", ">", "&", "\u{2028}", "\u{2029}", "\u{0}"..<" ", "\u{7f}"..."\u{9f}":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }
}
