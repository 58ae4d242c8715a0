import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage
import Testing

/// The program, as the reader runs it.
@Suite(.serialized)
struct Chapter01AsyncEventsDemo {
    private func run(_ arguments: String...) throws -> Child.Ending {
        let program = try #require(Child.product("01-async-events"))
        return try Child.run(program, arguments, within: .seconds(60))
    }

    @Test("it tells its story, and every claim holds", arguments: DriverKind.permitted)
    func story(kind: DriverKind) throws {
        let ending = try run("--driver", kind.rawValue)
        #expect(ending.status == 0 && ending.errors.isEmpty, "\(ending.output) \(ending.errors)")
        #expect(ending.output.contains("driver: \(kind)."))
        #expect(ending.output.contains("read 4 ") && !ending.output.contains("✗"))
        #expect(!ending.output.contains("\u{1b}"), "the output is no terminal")
        for pitfall in Chapter01.pitfalls { #expect(ending.output.contains(pitfall.slug)) }
    }

    @Test("it reads a file that is given, and says in one line why it cannot")
    func reading() throws {
        let scratch = try Scratch(size: 70_001)
        let ending = try run("read", scratch.path)
        #expect(
            ending.status == 0 && ending.output.contains("every way gave 70001 bytes"), "\(ending.output)")
        let nothing = try Scratch()
        let empty = try run("read", nothing.path)
        #expect(empty.status == 0, "\(empty.output) \(empty.errors)")
        let missing = try run("read", scratch.path + ".nowhere")
        #expect(missing.status == 1 && missing.errors.contains("No such file") && isOneLine(missing.errors))
    }

    @Test("it copies a file, without a line of progress where there is no terminal")
    func copying() throws {
        let (source, target) = (try Scratch(size: 3_000_001), try Scratch())
        let ending = try run("copy", source.path, target.path)
        #expect(ending.status == 0 && ending.errors.isEmpty, "\(ending.errors)")
        #expect(ending.output.hasPrefix("copied 3000001 bytes") && !ending.output.contains("\r"))
        let (one, other) = (try File(source.path), try File(target.path))
        let (first, second) = (Memory(3_000_002), Memory(3_000_002))
        #expect(pread(one.descriptor, first.bytes.baseAddress, 3_000_002, 0) == 3_000_001)
        #expect(pread(other.descriptor, second.bytes.baseAddress, 3_000_002, 0) == 3_000_001)
        #expect(memcmp(first.bytes.baseAddress!, second.bytes.baseAddress!, 3_000_001) == 0)
        for words in [
            [source.path, source.path], [source.path + ".no", target.path], ["/dev/zero", target.path],
        ] {
            let refused = try run("copy", words[0], words[1])
            #expect(refused.status == 1 && refused.output.isEmpty && isOneLine(refused.errors), "\(refused)")
        }
        #expect(try one.size == 3_000_001)
    }

    @Test(
        "what is not the file that it says is refused in one line: a pipe, a device, a file without its size")
    func notFiles() throws {
        let (pipe, target) = (try Scratch(), try Scratch())
        unlink(pipe.path)
        try #require(mkfifo(pipe.path, 0o600) == 0)
        for (source, words) in [
            (pipe.path, "it is no regular file"), ("/dev/zero", "it is no regular file"),
            ("/proc/version", "it says that it is empty and is not"),
        ] {
            for arguments in [["copy", source, target.path], ["read", source]] {
                let program = try #require(Child.product("01-async-events"))
                let ending = try Child.run(program, arguments, within: .seconds(20))
                #expect(!ending.timedOut && ending.status == 1, "\(arguments) \(ending.words)")
                #expect(ending.errors.contains(words) && isOneLine(ending.errors), "\(ending.errors)")
            }
        }
    }

    @Test("a file whose name looks like an option is copied behind --, and 80 columns are enough")
    func names() throws {
        let (source, target) = (try Scratch(size: 1_000), try Scratch())
        let program = try #require(Child.product("01-async-events"))
        let ending = try Child.run(
            "/bin/sh",
            [
                "-c", "cd /tmp && cp \"$1\" ./-x-$$ && \"$0\" copy -- -x-$$ \"$2\"; rm -- -x-$$", program,
                source.path, target.path,
            ],
            within: .seconds(30))
        #expect(ending.errors.isEmpty && ending.output.hasPrefix("copied 1000 bytes"), "\(ending)")
        #expect(try File(target.path).size == 1_000)
        let narrow = try Child.run(
            program, ["read", source.path], environment: ["COLUMNS": "80"], within: .seconds(60))
        #expect(narrow.status == 0 && narrow.output.split(separator: "\n").allSatisfy { $0.count <= 80 })
        let help = try Child.run(program, ["--help"], within: .seconds(20))
        #expect(help.output.split(separator: "\n").allSatisfy { $0.count <= 80 }, "\(help.output)")
    }

    @Test("what it does not understand is one line and exit status 2")
    func refusals() throws {
        for words in [
            ["copy", "a"], ["read"], ["read", "a", "b"], ["walk"], ["--pitfall", "none"], ["--svg", "/no/x"],
        ] {
            let program = try #require(Child.product("01-async-events"))
            let ending = try Child.run(program, words, within: .seconds(30))
            #expect(
                ending.status == 2 && ending.output.isEmpty && isOneLine(ending.errors), "\(words) \(ending)")
        }
    }

    @Test("it plays each pitfall alone", arguments: Chapter01.pitfalls.map(\.slug))
    func pitfalls(slug: String) throws {
        let ending = try run("--pitfall", slug)
        #expect(ending.status == 0, "\(ending.output) \(ending.errors)")
        #expect(ending.output.contains("✓ it goes wrong") && ending.output.contains("✓ it does not go wrong"))
    }

    private func isOneLine(_ text: String) -> Bool { text.hasSuffix("\n") && text.count { $0 == "\n" } == 1 }
}
