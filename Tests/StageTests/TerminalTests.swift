import Kernel
@testable import Stage
import Testing
import Timeline

/// A terminal that keeps what was printed.
final class Paper: Sendable {
    private let lines = Kept()

    func terminal(plain: Bool = true, columns: Int = 80) -> Terminal {
        Terminal(plain: plain, columns: columns) { [lines] in lines.append($0) }
    }
    var text: String { lines.text }

    private final class Kept: @unchecked Sendable {
        private let lock = Lock()
        private var all = ""  // under the lock
        func append(_ text: String) { lock.locked { all += text } }
        var text: String { lock.locked { all } }
    }
}

@Suite struct StageTerminal {
    @Test("the exit status is 0 only if all claims held")
    func claims() {
        let paper = Paper()
        let terminal = paper.terminal()
        terminal.claim("water is wet", holds: true)
        #expect(terminal.exitStatus == 0)
        terminal.claim("fire is cold", holds: false)
        terminal.claim("ice is cold", holds: true)
        #expect(terminal.exitStatus == 1)
        #expect(paper.text == "✓ water is wet\n✗ fire is cold\n✓ ice is cold\n")
    }

    @Test("a table is aligned, numbers on the right")
    func table() {
        let paper = Paper()
        paper.terminal().table(
            ["way", "per second", "note"],
            [["one thread", "9", "slow"], ["a port", "120,000", ""], ["none"]])
        #expect(
            paper.text == """
                way         per second  note
                one thread           9  slow
                a port         120,000
                none

                """)
    }

    @Test("what is wider than the terminal is wrapped at words, under where it began")
    func wrapping() {
        let paper = Paper()
        let terminal = paper.terminal(columns: 40)
        terminal.say("  a line that is longer than the forty characters of this terminal")
        terminal.claim("a claim that is longer than forty characters, too", holds: true)
        terminal.heading("A heading that is longer than forty characters")
        terminal.say("aWordThatIsLongerThanTheFortyCharactersOfThisTerminal stays whole")
        terminal.say("one    two    three    columns    are  kept")
        #expect(
            paper.text == """
                  a line that is longer than the forty
                  characters of this terminal
                ✓ a claim that is longer than forty
                  characters, too

                A heading that is longer than forty
                characters
                ───────────────────────────────────
                aWordThatIsLongerThanTheFortyCharactersOfThisTerminal
                stays whole
                one    two    three    columns    are
                kept

                """)
    }

    @Test("a table that is wider than the terminal is wrapped inside its columns")
    func narrowTable() {
        let paper = Paper()
        paper.terminal(columns: 40).table(
            ["what there is to be seen", "threads at 1,000", "memory each"],
            [["a server with a thread each", "1,003", "12.1 KiB"], ["one thread", "3", "0.1 KiB"]])
        #expect(
            paper.text == """
                what there       threads at  memory each
                is to be              1,000
                seen
                a server              1,003     12.1 KiB
                with a
                thread each
                one thread                3      0.1 KiB

                """)
    }

    @Test("colours need a terminal that understands them")
    func colourless() {
        #expect(Terminal.showsColours(isTerminal: true) { ["TERM": "xterm"][$0] })
        #expect(Terminal.showsColours(isTerminal: true) { ["TERM": "xterm", "NO_COLOR": ""][$0] })
        #expect(!Terminal.showsColours(isTerminal: true) { ["TERM": "dumb"][$0] })
        #expect(!Terminal.showsColours(isTerminal: true) { ["TERM": "xterm", "NO_COLOR": "1"][$0] })
        #expect(!Terminal.showsColours(isTerminal: false) { ["TERM": "xterm"][$0] })
    }

    @Test("a status line takes the place of the last one, and the terminal itself cuts it at its edge")
    func status() {
        let paper = Paper()
        let terminal = paper.terminal(plain: false)
        terminal.status("long")
        terminal.status("on")
        terminal.status(nil)
        let line = { (words: String) in "\r\u{1b}[K\u{1b}[?7l\(words)\u{1b}[?7h" }
        #expect(paper.text == line("long") + line("on") + "\r\u{1b}[K")
        let plain = Paper()
        plain.terminal().status("nothing")
        #expect(plain.text.isEmpty)
    }

    @Test("a bar is as long as its share, and stays in the width")
    func bar() {
        let paper = Paper()
        let terminal = paper.terminal(columns: 40)
        terminal.bar("half", 5, of: 10, width: 10, figure: "5 ms")
        terminal.bar("full", 10, of: 10, width: 10, figure: "10 ms")
        terminal.bar("beyond any measure", 99, of: 10, width: 10, figure: "99 ms")
        terminal.bar("nothing", 0, of: 0, width: 10, figure: "0 ms")
        #expect(
            paper.text == """
                half       ███████████▌ 5 ms
                full       ██████████████████████ 10 ms
                beyond any ██████████████████████ 99 ms
                nothing     0 ms

                """)
    }

    @Test("colours come only where they are wanted")
    func colours() {
        let plain = Paper()
        let coloured = Paper()
        let recording = Recording(
            records: [.init(nanoseconds: 0, lane: 0, operation: 1, what: .moment(.posted))],
            lanes: [.init(name: "main", thread: 1)])
        for terminal in [plain.terminal(), coloured.terminal(plain: false)] {
            terminal.heading("Heading")
            terminal.claim("claim", holds: true)
            terminal.bar("bar", 1, of: 1, figure: "1")
            terminal.draw(recording)
        }
        #expect(!plain.text.contains("\u{1b}"))
        #expect(plain.text.hasPrefix("\nHeading\n───────\n✓ claim\n"))
        #expect(coloured.text.replacing(/\u{1b}\[[0-9;]*m/, with: "") == plain.text)
        #expect(coloured.text != plain.text)
    }

    @Test("durations and numbers are readable")
    func figures() {
        #expect(readable(Duration.nanoseconds(999)) == "999 ns")
        #expect(readable(Duration.nanoseconds(15_103)) == "15.1 µs")
        #expect(readable(Duration.milliseconds(1_250)) == "1.25 s")
        #expect(readable(Duration.milliseconds(-250)) == "-250 ms")
        #expect(readable(Duration.seconds(7_200)) == "7,200 s")
        #expect(readable(0.0) == "0.00" && readable(9.999) == "10.0" && readable(99.99) == "100")
        #expect(readable(-0.001) == "0.00" && readable(1.05) == "1.05" && readable(12_345.6) == "12,346")
        #expect(readable(0) == "0" && readable(-1_234_567) == "-1,234,567" && readable(999) == "999")
        #expect(counted(1, "client") == "1 client" && counted(1_000, "client") == "1,000 clients")
        #expect(counted(0, "copy", "copies") == "0 copies")
        #expect(readable(Int.min) == "-9,223,372,036,854,775,808")
    }

    @Test("lines of many threads are not mixed")
    func threads() {
        let paper = Paper()
        let terminal = paper.terminal()
        inThreads(4) { thread in
            for _ in 0..<100 { terminal.table(["\(thread)"], [["\(thread)"]]) }
        }
        let lines = paper.text.split(separator: "\n")
        #expect(lines.count == 800)
        for pair in stride(from: 0, to: 800, by: 2) { #expect(lines[pair] == lines[pair + 1]) }
    }
}

@Suite struct StagePitfalls {
    private func pitfall(broken: Bool, fixed: Bool) -> Pitfall {
        Pitfall(
            slug: "some-slug", title: "Something goes wrong.",
            broken: { Observation(happened: broken, lines: ["broken on \($0)"]) },
            fixed: { Observation(happened: fixed, lines: ["fixed on \($0)"]) })
    }

    @Test("a pitfall is played broken, then fixed, and both must do what they claim")
    func play() {
        let paper = Paper()
        let terminal = paper.terminal()
        Pitfalls.play("some-slug", from: [pitfall(broken: true, fixed: false)], driver: .epoll, on: terminal)
        #expect(terminal.exitStatus == 0)
        #expect(
            paper.text == """

                some-slug: Something goes wrong.
                ────────────────────────────────
                driver: epoll

                broken
                  broken on epoll
                ✓ it goes wrong

                fixed
                  fixed on epoll
                ✓ it does not go wrong

                """)
    }

    @Test(
        "a bug that does not show, a fix that does not hold, a scenario that throws and an unknown slug all fail"
    )
    func failures() {
        struct Broke: Error {}
        let throwing = Pitfall(
            slug: "some-slug", title: "t", broken: { _ in throw Broke() },
            fixed: { _ in Observation(happened: false, lines: []) })
        for bad in [pitfall(broken: false, fixed: false), pitfall(broken: true, fixed: true), throwing] {
            let terminal = Paper().terminal()
            Pitfalls.play("some-slug", from: [bad], driver: .epoll, on: terminal)
            #expect(terminal.exitStatus == 1)
        }
        let terminal = Paper().terminal()
        Pitfalls.play("other", from: [pitfall(broken: true, fixed: false)], driver: .epoll, on: terminal)
        #expect(terminal.exitStatus == 1)
    }
}
