import Testing

/// An error put into the sample project, and what a check has to say about it.
struct Plant: Sendable, CustomTestStringConvertible {
    let check: @Sendable (Project) -> [String]
    let file: String
    let old: String
    let new: String
    let complaint: String

    init(
        _ check: @escaping @Sendable (Project) -> [String], in file: String, _ old: String,
        becomes new: String,
        says complaint: String
    ) {
        self.check = check
        self.file = file
        self.old = old
        self.new = new
        self.complaint = complaint
    }

    var testDescription: String { "\(complaint) (\(file))" }
}

private let tutorial = "Tutorials/02-completion-ports.md"
private let library = "Sources/02-CompletionPorts/Library/Port.swift"
private let fixes = "Tests/02-CompletionPortsTests/Fixes.swift"
private let reproductions = "Tests/02-CompletionPortsTests/Pitfalls.swift"
private let drawing = "diagrams/02-wake-order.svg"
private let start = "Tutorials/README.md"
private let readme = "README.md"
private let dictionary = "Tutorials/dictionary.md"

@Suite("The checks themselves") struct CheckTests {
    static let checks: [@Sendable (Project) -> [String]] = [
        checkListings, checkLinks, checkSlugs, checkShape, checkInvariants, checkLayout, checkTableOfContents,
        checkSizes, checkShown, checkImports, checkRooms, checkBrokenTypes, checkDictionary, checkDrawings,
    ]

    @Test("no check has anything to say about a project in order", arguments: checks.indices)
    func sample(number: Int) {
        #expect(Self.checks[number](.sample) == [])
    }

    @Test("a planted error in the text is caught", arguments: inText) func text(plant: Plant) {
        expectCaught(plant)
    }

    @Test("a planted error in the index, the contents or the dictionary is caught", arguments: inLists)
    func lists(plant: Plant) {
        expectCaught(plant)
    }

    @Test("a planted error in code or drawings is caught", arguments: inCode) func code(plant: Plant) {
        expectCaught(plant)
    }

    private func expectCaught(_ plant: Plant) {
        let project = Project.sample.replacing(plant.old, with: plant.new, in: plant.file)
        #expect(project.files != Project.sample.files, "nothing was planted")
        let complaints = plant.check(project)
        #expect(complaints.contains { $0.contains(plant.complaint) }, "\(complaints)")
    }

    static let inText = [
        Plant(checkListings, in: tutorial, "    queue()", becomes: "    enqueue()", says: "not a piece of"),
        Plant(checkListings, in: tutorial, "    queue()", becomes: "queue()", says: "not a piece of"),
        Plant(
            checkListings, in: tutorial, "Library/Port.swift", becomes: "Library/Gone.swift", says: "no file"),
        Plant(
            checkListings, in: tutorial, "<!-- Sources/02-CompletionPorts/Library/Port.swift -->",
            becomes: "",
            says: "without its source"),
        Plant(checkListings, in: tutorial, "⚠︎ Broken on purpose", becomes: "Look", says: "but not headed"),
        Plant(
            checkListings, in: tutorial, "a piece\n", becomes: "a piece, ⚠︎ Broken on purpose\n",
            says: "not from a Pitfalls folder"),
        Plant(checkListings, in: tutorial, "test --filter Chapter02\n```", becomes: "", says: "never closed"),
        Plant(checkLinks, in: start, "(02-completion-ports.md)", becomes: "(03.md)", says: "leads nowhere"),
        Plant(checkLinks, in: start, "(02-completion-ports.md)", becomes: "(/02.md)", says: "leads nowhere"),
        Plant(
            checkLinks, in: start, "(02-completion-ports.md)", becomes: "(../../x.md)", says: "leads nowhere"),
        Plant(checkLinks, in: start, "#the-problem", becomes: "#the-cure", says: "no heading #the-cure"),
        Plant(checkLinks, in: tutorial, "(#the-pitfalls)", becomes: "(#pits)", says: "no heading #pits"),
        Plant(checkLinks, in: tutorial, "02-wake-order.svg", becomes: "02-gone.svg", says: "leads nowhere"),
        Plant(
            checkLinks, in: tutorial, "![The newest waiter is released first.]", becomes: "![]",
            says: "does not say its point"),
        Plant(
            checkShape, in: tutorial, "# 02 · Completion ports", becomes: "# Ports", says: "its only title"),
        Plant(checkShape, in: tutorial, "A promise.", becomes: "", says: "no promise"),
        Plant(checkShape, in: tutorial, "![The newest", becomes: "[The newest", says: "no picture"),
        Plant(checkShape, in: tutorial, "## Predict", becomes: "## Guess", says: "its parts are"),
        Plant(checkShape, in: tutorial, "## Exercise\nDo it.", becomes: "## Exercise", says: "is empty"),
        Plant(checkShape, in: tutorial, "- build\n", becomes: "", says: "three list items"),
        Plant(
            checkShape, in: tutorial, "swift run 02-", becomes: "swift run 03-", says: "no command that runs"),
        Plant(checkShape, in: tutorial, "```text", becomes: "```sh", says: "no output"),
        Plant(checkShape, in: tutorial, "**I2.2** First", becomes: "**I2.3** First", says: "numbered"),
        Plant(checkShape, in: tutorial, "Nothing.</details>", becomes: "Nothing.", says: "no folded answer"),
        Plant(checkShape, in: tutorial, "<summary>Two?</summary>", becomes: "", says: "fewer than two"),
        Plant(checkShape, in: tutorial, "### Slice 3: a piece", becomes: "", says: "three to six slices"),
        Plant(
            checkShape, in: tutorial, "### Slice 3: a", becomes: "### Slice 4: a", says: "should be called"),
        Plant(checkShape, in: tutorial, "**Try it.**", becomes: "Well.", says: "nothing to try"),
        Plant(
            checkShape, in: tutorial, "Library/Port.swift -->", becomes: "Port -- >", says: "shows no listing"
        ),
        Plant(checkShape, in: tutorial, "**Cost.** Nothing.", becomes: "", says: "lacks '**Cost'"),
        Plant(
            checkShape, in: tutorial, "/Pitfalls/Nobody", becomes: "/Library/Nobody", says: "no broken code"),
        Plant(checkShape, in: tutorial, "### `nobody-wakes`: ", becomes: "### ", says: "three to six told"),
        Plant(checkShape, in: tutorial, "|---|---|", becomes: "", says: "no table"),
        Plant(checkShape, in: tutorial, "### … two", becomes: "", says: "rejected ways"),
        Plant(checkShape, in: tutorial, "swift test --filter", becomes: "make", says: "no command"),
    ]

    static let inLists = [
        Plant(
            checkShape, in: "Package.swift", "02-completion-ports", becomes: "02-ports", says: "there is no"),
        Plant(checkSlugs, in: reproductions, "nobody-wakes", becomes: "nobody", says: "not reproduced"),
        Plant(checkSlugs, in: fixes, "\"nobody-wakes: ", becomes: "\"On nobody-wakes: ", says: "not fixed"),
        Plant(checkSlugs, in: tutorial, "nobody-wakes", becomes: "somebody", says: "not told"),
        Plant(
            checkSlugs, in: index, "(02-completion-ports.md#the-pitfalls)", becomes: "", says: "does not link"
        ),
        Plant(checkSlugs, in: index, "chapter 03", becomes: "[03](03.md)", says: "does not exist yet"),
        Plant(checkSlugs, in: index, "`later-one` | 03", becomes: "`nobody-wakes` | 03", says: "twice"),
        Plant(checkSlugs, in: index, "`later-one`", becomes: "`Later`", says: "is no slug"),
        Plant(checkSlugs, in: index, "| 02 |", becomes: "| two |", says: "does not know nobody-wakes"),
        Plant(checkSlugs, in: index, "|", becomes: "!", says: "no pitfall in it"),
        Plant(
            checkSlugs, in: tutorial, "### `nobody-wakes`: ", becomes: "- `some-new`: ",
            says: "not know some-new"),
        Plant(
            checkInvariants, in: library, "// I2.2", becomes: "// I2.20", says: "I2.2 is not cited in Sources"
        ),
        Plant(checkInvariants, in: fixes, "and I2.2", becomes: "", says: "I2.2 is not cited in Tests"),
        Plant(checkInvariants, in: fixes, "I2.2", becomes: "I2.2, I2.7", says: "no tutorial declares I2.7"),
        Plant(checkTableOfContents, in: readme, "| 02 |", becomes: "| 2 |", says: "a table of 0 chapters"),
        Plant(checkTableOfContents, in: readme, "`swift run 02-c", becomes: "`swift run c", says: "lacks"),
        Plant(checkTableOfContents, in: readme, "(Tutorials/02-", becomes: "(02-", says: "lacks"),
        Plant(
            checkTableOfContents, in: "Package.swift", "02-CompletionPorts", becomes: "03-Other",
            says: "Package.swift lists"),
        Plant(checkTableOfContents, in: "Sources/Tour/Stop.swift", "02-", becomes: "2-", says: "no stop of"),
        Plant(checkTableOfContents, in: start, "(02-completion-ports.md)", becomes: "()", says: "no link to"),
        Plant(
            checkDictionary, in: dictionary, "Port.post()", becomes: "Port.send()", says: "there is no send"),
        Plant(checkDictionary, in: dictionary, "`FREE`", becomes: "`Port.free`", says: "there is no free"),
        Plant(checkDictionary, in: dictionary, "| `", becomes: "| ", says: "no entry"),
    ]

    static let inCode = [
        Plant(checkSizes, in: library, "queue()", becomes: many(300), says: "more than 260"),
        Plant(checkShown, in: library, "queue()", becomes: many(300), says: "0 of 306 lines of code"),
        Plant(
            checkShown, in: tutorial, "    queue()", becomes: "    enqueue()", says: "0 of 7 lines of code"),
        Plant(checkSizes, in: library, "queue()", becomes: many(1_000), says: "more than 950"),
        Plant(
            checkSizes, in: "Sources/Kernel/Drivers/Ring.swift", "let room = 1", becomes: many(300),
            says: "Sources/Kernel/Drivers/Ring.swift: 302 lines"),
        Plant(
            checkRooms, in: "Sources/Kernel/System/Lock.swift", "false", becomes: "Handle()",
            says: "System may not know Handles"),
        Plant(
            checkRooms, in: "Sources/Kernel/Handles/Handle.swift", "Driver?", becomes: "Ring?",
            says: "names Ring; Handles may not know Drivers"),
        Plant(
            checkRooms, in: "Sources/Kernel/Handles/Driver.swift", "Handle?", becomes: "Handle? = sink()",
            says: "names sink; Handles may not know Operations"),
        Plant(
            checkRooms, in: "Sources/Kernel/Operations/Sink.swift", "{}", becomes: "{ Ring() }",
            says: "Operations may not know Drivers"),
        Plant(
            checkImports, in: "Package.swift", "uses", becomes: ".package(url", says: "a package dependency"),
        Plant(
            checkImports, in: library, "import Kernel", becomes: "import Foundation",
            says: "imports Foundation"),
        Plant(
            checkBrokenTypes, in: library, "struct Port", becomes: "struct BrokenPort",
            says: "outside Pitfalls"),
        Plant(checkDrawings, in: drawing, "</text>", becomes: "", says: "closes what is not open"),
        Plant(checkDrawings, in: drawing, "</svg>", becomes: "", says: "never closed"),
        Plant(checkDrawings, in: drawing, "&amp;", becomes: "&", says: "a bare &"),
        Plant(checkDrawings, in: drawing, "x=\"1\"", becomes: "x=1", says: "without quotes"),
        Plant(checkDrawings, in: drawing, "x=\"1\"", becomes: "x=\"1\" x=\"2\"", says: "stands there twice"),
        Plant(checkDrawings, in: drawing, "x2='1'", becomes: "x2='1", says: "without an end"),
        Plant(
            checkDrawings, in: drawing, "<title>", becomes: "<!-- <title>", says: "a comment without an end"),
        Plant(checkDrawings, in: drawing, "</svg>", becomes: "</svg><g/>", says: "the root is"),
        Plant(checkDrawings, in: drawing, "prefers-color-scheme", becomes: "print", says: "light and dark"),
        Plant(checkDrawings, in: drawing, "viewBox", becomes: "width", says: "no viewBox"),
        Plant(
            checkDrawings, in: tutorial, "02-wake-order.svg", becomes: "02-x.svg", says: "no page shows it"),
    ]

    private static func many(_ lines: Int) -> String { String(repeating: "queue()\n", count: lines) }

    @Test(
        "a missing piece of a chapter is missed",
        arguments: [
            "Sources/02-CompletionPorts/Library/Port.swift", "Sources/02-CompletionPorts/Demo/main.swift",
            "Sources/02-CompletionPorts/Pitfalls/NobodyWakes.swift", reproductions, fixes, drawing,
        ])
    func missing(file: String) {
        var project = Project.sample
        project.files[file] = nil
        #expect(checkLayout(project).count == 1)
    }

    @Test("what does not belong in the root folder is noticed, unless it is ignored or hidden") func litter()
    {
        var project = Project.sample
        project.topLevel.formUnion(["notes.txt", "core.o", ".vscode"])
        project.files[".gitignore"] = "*.o\n/trace.json\n"
        #expect(checkLayout(project) == ["notes.txt does not belong in the root folder"])
    }

    @Test("a chapter that imports a later one is noticed") func order() {
        var project = Project.sample
        project.files["Sources/01-AsyncEvents/Demo/main.swift"] = "internal import CompletionPortsPitfalls\n"
        project.files["Sources/Stage/Load.swift"] = "@testable import AsyncEvents\n"
        #expect(
            checkImports(project) == [
                "Sources/01-AsyncEvents/Demo/main.swift: chapter 01 imports CompletionPortsPitfalls of chapter 02",
                "Sources/Stage/Load.swift: imports the chapter AsyncEvents",
            ])
    }

    @Test(
        "a heading's anchor is GitHub's",
        arguments: [
            ("Why not …?", "why-not-"), ("02 · Completion ports", "02--completion-ports"),
            ("`exit-flag-never-seen`: a *flag*", "exit-flag-never-seen-a-flag"),
            ("See [this](that.md)", "see-this"),
        ])
    func anchors(heading: String, anchor: String) {
        #expect(Markdown.anchor(of: heading) == anchor)
    }

    @Test("a display name is read over line ends, its slugs before the colon") func names() {
        let names = displayNamesOfTests(
            "@Test(\n    \"a-b, c-d: say \\\"x\\\"\", arguments: [1]) @Test(.disabled())")
        #expect(names == [#"a-b, c-d: say \"x\""#])
        #expect(slugs(ofDisplayName: names[0]) == ["a-b", "c-d"])
        #expect(slugs(ofDisplayName: "The port: it works") == [])
    }
}
