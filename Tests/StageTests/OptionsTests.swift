import Glibc
import Kernel
import Stage
import Testing

@Suite struct StageOptions {
    private let usage = Usage(
        "02-sample", "A program to try the options on.",
        options: [
            .serve, .address, .workers, .concurrency, .driver, .clients, .seconds, .svg, .trace, .plain,
            .number("depth", in: 1...64, "how deep"), .flag("loud", "say more"),
        ],
        commands: [("stress", "the heavy part"), ("quick", "the light part")], maximumArguments: 1,
        pitfalls: [
            Pitfall(
                slug: "wrong-way", title: "It goes the wrong way.",
                broken: { _ in Observation(happened: true, lines: []) },
                fixed: { _ in Observation(happened: false, lines: []) })
        ])

    @Test("every option is understood, with a blank or an equals sign, and words may stand anywhere")
    func all() throws {
        let options = try Options(
            [
                "--serve", "8080", "stress", "--address=::1", "--workers", "3", "--concurrency=0", "one",
                "--driver", "io_uring", "--clients", "12", "--seconds", "1.5", "--svg", "/tmp/x.svg",
                "--trace=x.json",
                "--plain", "--depth", "7", "--loud", "--pitfall", "wrong-way",
            ], usage)
        #expect(options.serve == 8080)
        #expect(options.address == "::1")
        #expect(options.listenAddress == Address("::1", port: 8080))
        #expect(options.workers == 3)
        #expect(options.concurrency == 0)
        #expect(options.driver == .ioUring)
        #expect(options.clients == 12)
        #expect(options.seconds == .milliseconds(1_500))
        #expect(options.value(.svg) == "/tmp/x.svg")
        #expect(options.value(.trace) == "x.json")
        #expect(options.plain)
        #expect(options.number(usage.options[10]) == 7)
        #expect(options.has(usage.options[11]))
        #expect(options.pitfall == "wrong-way")
        #expect(options.words == ["stress", "one"])
        #expect(!options.wantsHelp)
    }

    @Test("behind -- every argument is a word, whatever it begins with")
    func endOfOptions() throws {
        let options = try Options(["--plain", "stress", "--", "--workers"], usage)
        #expect(options.words == ["stress", "--workers"] && options.plain && options.workers == nil)
        #expect(try Options(["--", "quick", "--"], usage).words == ["quick", "--"])
        #expect(try Options(["quick", "-", "--"], usage).words == ["quick", "-"])
    }

    @Test("a file that looks like an option is recognised, and the line says what to do")
    func fileLikeAnOption() async {
        await #expect(processExitsWith: .success) {
            guard chdir("/tmp") == 0 else { exit(1) }
            let name = "-stage-test-\(getpid())"
            try writeFile(name, "")
            defer { unlink(name) }
            let taking = Usage(
                "taking", "Takes files.", options: [.plain], commands: [("send", "FILE …")],
                maximumArguments: 3)
            let error = #expect(throws: BadUsage.self) { try Options(["send", name], taking) }
            #expect(
                error?.description == "unknown option \"\(name)\"; for the file write -- in front of it")
            #expect(try Options(["send", "--", name], taking).words == ["send", name])
        }
    }

    @Test("what is not given has its default")
    func defaults() throws {
        let options = try Options([], usage)
        #expect(
            options.serve == nil && options.workers == nil && options.seconds == nil && options.pitfall == nil
        )
        #expect(options.listenAddress == .loopback())
        #expect(options.driver == .standard)
        #expect(!options.plain && options.words.isEmpty)
    }

    @Test(
        "what is wrong is said in one line, with what to do",
        arguments: [
            (["--bogus"], "unknown option \"--bogus\"; --help lists the options"),
            (["-x"], "unknown option \"-x\"; --help lists the options"),
            (["--li\nne"], "unknown option \"--li?ne\"; --help lists the options"),
            (["--workers"], "--workers needs a value: --workers N"),
            (["--workers", "--plain"], "--workers needs a value: --workers N"),
            (["--workers", "0"], "--workers: \"0\" is no whole number from 1 to 256"),
            (["--workers", "-1"], "--workers: \"-1\" is no whole number from 1 to 256"),
            (["--serve", "65536"], "--serve: \"65536\" is no whole number from 0 to 65535"),
            (["--serve="], "--serve: \"\" is no whole number from 0 to 65535"),
            (["--seconds", "nan"], "--seconds: \"nan\" is no number from 0.1 to 3600"),
            (["--driver", "kqueue"], "--driver: \"kqueue\" is none of epoll, io_uring"),
            (
                ["--address", "localhost"],
                "--address: \"localhost\" is no address in digits, such as 127.0.0.1 or ::1"
            ),
            (["--plain=yes"], "--plain takes no value; leave \"=\" out"),
            (
                ["--pitfall", "right-way"],
                "--pitfall: \"right-way\" is none of this chapter's; --help lists them"
            ),
            (["slow"], "unknown word \"slow\"; there are: stress, quick"),
            (["quick", "a", "b"], "\"b\" is one word too many; --help shows what is accepted"),
            (
                ["--svg", "/nowhere/at/all/x.svg"],
                "--svg: \"/nowhere/at/all/x.svg\" cannot be written: No such file or directory (/nowhere/at/all)"
            ),
            (["--trace", "/tmp/"], "--trace: \"/tmp/\" is no file"),
        ])
    func wrong(arguments: [String], line: String) {
        let error = #expect(throws: BadUsage.self) { try Options(arguments, usage) }
        #expect(error?.description == line)
    }

    @Test("a program that does not accept an option or a word says so")
    func notAccepted() {
        let small = Usage("small", "Takes little.", options: [.plain])
        #expect(throws: BadUsage.self) { try Options(["--serve", "1"], small) }
        #expect(throws: BadUsage.self) { try Options(["--pitfall", "wrong-way"], small) }
        let error = #expect(throws: BadUsage.self) { try Options(["word"], small) }
        #expect(error?.description == "unknown word \"word\"; this program takes options only, see --help")
    }

    @Test("the usage names everything, in columns, within 80 characters", arguments: [80, 60])
    func help(columns: Int) throws {
        #expect(try Options(["--help"], usage).wantsHelp)
        #expect(try Options(["-h"], usage).wantsHelp)
        let lines = usage.text(columns: columns).split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.first == "02-sample: A program to try the options on.")
        #expect(lines.contains("usage: swift run 02-sample [COMMAND [ARGUMENT …]] [OPTION …]"))
        for option in usage.options { #expect(lines.contains { $0.hasPrefix("  --\(option.name) ") }) }
        #expect(lines.contains { $0.hasPrefix("  --driver epoll|io_uring  which") })
        #expect(lines.contains { $0.hasPrefix("  wrong-way ") && $0.hasSuffix("It goes the wrong way.") })
        #expect(lines.contains { $0.hasPrefix("  stress ") && $0.hasSuffix("the heavy part") })
        #expect(lines.contains { $0.hasPrefix("  --help ") })
        #expect(lines.dropFirst(3).allSatisfy { $0.count <= columns }, "\(lines)")
        let words = usage.text(columns: columns).split { $0 == " " || $0 == "\n" }
        #expect(words == usage.text(columns: 1_000).split { $0 == " " || $0 == "\n" }, "no word is cut")
    }

    @Test("a bad command line ends a program with 2 and one line, and help with 0")
    func exits() throws {
        let bench = try #require(Child.product("bench"))
        let bad = try Child.run(bench, ["--bogus"], within: .seconds(20))
        #expect(bad.status == 2 && bad.output.isEmpty)
        #expect(bad.errors == "bench: unknown option \"--bogus\"; --help lists the options\n")
        // An option that would be ignored is refused.
        let idle = try Child.run(bench, ["stress", "teardown", "--seconds", "1"], within: .seconds(20))
        #expect(idle.status == 2 && idle.output.isEmpty)
        #expect(idle.errors == "bench: stress teardown ends when its work is done: leave --seconds out\n")
        let good = try Child.run(bench, ["--help"], within: .seconds(20))
        #expect(good.status == 0 && good.errors.isEmpty)
        #expect(good.output.hasPrefix("bench: ") && good.output.contains("\n  --help "))
    }
}
