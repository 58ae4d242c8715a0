import Framing

/// The name of a file in one folder, and never anywhere else. There is no other way to a path than through it. (I8.5)
///
/// A name that comes from the other side is bytes that a stranger may have chosen. What is one step of a path on every system,
/// and nothing else, is a name; everything else is refused, not repaired: a repaired name is one that was never meant.
public struct SafeName: Hashable, Sendable, CustomStringConvertible {
    /// The name.
    public let description: String

    /// What a file is called while it arrives. No safe name begins so: no peer reaches a half file by its name.
    static let temporaryPrefix = ".incoming-"
    /// The most bytes of a name, on every file system that matters.
    public static let maximumLength = 255

    /// The name behind some bytes; nil when they are not the name of a file in a folder.
    public init?(_ bytes: some Collection<UInt8>) {
        guard (1...SafeName.maximumLength).contains(bytes.count),
            let text = String(validating: bytes, as: UTF8.self),
            text != ".", text != "..", !bytes.starts(with: SafeName.temporaryPrefix.utf8),
            // A slash makes a path, a backslash does on Windows, and so does the colon of a drive.
            !text.utf8.contains(where: { "/\\:".utf8.contains($0) }),
            // What chapter 06 would not print as it is is no name: what moves a terminal's cursor, turns the direction of
            // the text or cannot be seen; and a NUL, which ends it for the system but not for Swift.
            readable(bytes) == text
        else { return nil }
        description = text
    }

    /// The name behind a text.
    public init?(_ text: String) { self.init(text.utf8) }

    /// The last step of a path: what a file is called when it is sent.
    public init?(ofPath path: String) {
        self.init(path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).last!)
    }

    /// Where the file is, in a folder.
    func path(in folder: String) -> String { folder + "/" + description }
}

/// Bytes for people, as chapter 06 prints them: nothing in them steers a terminal.
private func readable(_ bytes: some Collection<UInt8>) -> String { Array(bytes).span.bytes.printable }

/// A name for a message to people: printable, and not longer than a line.
func readableName(_ bytes: some Collection<UInt8>) -> String {
    bytes.isEmpty ? "(no name)" : readable(bytes.prefix(60)) + (bytes.count > 60 ? "…" : "")
}
