import AsyncEvents
import Glibc
import Kernel
import Stage

/// A program that copies a file and says so is started by another one that has closed its standard input and output, as
/// a shell does for `copy SOURCE TARGET <&- >&-`. Which descriptors are open is a matter of the whole process, so each
/// half has one of its own.
public enum ClosedStandardDescriptor {
    static let pitfall = Pitfall(
        slug: "closed-standard-descriptor",
        title: "a file gets the number of a closed standard stream, and the program's messages go into it",
        broken: { _ in try play("broken", [argument]) }, fixed: { _ in try play("fixed", ["copy"]) })

    /// Tells the program of this chapter that it is the broken half.
    private static let argument = "--closed-standard-descriptor"
    private static let size = 100_000

    private static func play(_ half: String, _ words: [String]) throws -> Observation {
        guard let program = Child.product("01-async-events") else {
            throw SystemError(ENOENT, attempted: "find the program 01-async-events beside this one")
        }
        let (source, target) = (try Scratch(size: size), try Scratch())
        let ending = try Child.run(
            "/bin/sh", ["-c", "exec \"$0\" \"$@\" <&- >&-", program] + words + [source.path, target.path],
            within: .seconds(30))
        let copy = Memory(size)
        let file = try File(target.path)
        let count = pread(file.descriptor, copy.bytes.baseAddress, size, 0)
        let expected = Scratch.pattern(0..<Int64(size))
        let wrong = (0..<size).count { $0 >= count || copy.bytes[$0] != expected[$0] }
        let start = copy.bytes.prefix(26).map { (0x20..<0x7f).contains($0) ? $0 : UInt8(ascii: ".") }
        return Observation(
            happened: ending.status == 0 && wrong > 0,
            lines: [
                "started with <&- >&-: the program \(ending.words)",
                "the target begins: \"\(String(decoding: start, as: UTF8.self))\"",
                "of \(readable(size)) bytes \(readable(wrong)) are not those of the source",
            ] + (ending.status == 0 ? [] : ["so the copy was not made"]))
    }

    /// If this process was started as the broken half: copies, says so, and ends. To be called before anything else.
    public static func playIfChild() {
        let words = CommandLine.arguments
        guard words.count == 4, words[1] == argument else { return }
        do {
            try BrokenCopier.run(from: words[2], to: words[3])
            exit(0)
        } catch {
            fail("\(error)")
        }
    }
}

/// Takes it for granted that somebody has opened the standard output.
enum BrokenCopier {
    static func run(from source: String, to target: String) throws {
        // The lowest free numbers: 0 for the source, and 1 for the target.
        let copy = try FileCopy(from: source, to: target)
        let bytes = try copy.run()
        // And 1 is where every program prints.
        Terminal(plain: true).say("copied \(bytes) bytes: well done")
    }
}
