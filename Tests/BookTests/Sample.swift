import Foundation

/// A small project about which no check has anything to say. The tests of the checks plant errors in it.
extension Project {
    static let sample = Project(files: [
        "Package.swift": #"Chapter(folder: "02-CompletionPorts", product: "02-completion-ports", uses: [])"#,
        "README.md": """
        # The book
        | | chapter | what you see | run |
        |---|---|---|---|
        | 02 | [Ports](Tutorials/02-completion-ports.md) | workers | `swift run 02-completion-ports` |
        """,
        "LICENSE": "",
        "Sources/02-CompletionPorts/Library/Port.swift": """
        import Kernel

        struct Port {
            let FREE = 1
            // I2.1: one packet for each operation.
            func post() {
                queue()
            }
            // I2.2: first in, first out.
        }
        """,
        "Sources/02-CompletionPorts/Pitfalls/NobodyWakes.swift":
            "struct BrokenPort {\n    let asleep = true\n}",
        "Sources/02-CompletionPorts/Demo/main.swift": "import CompletionPorts",
        "Sources/Kernel/System/Lock.swift": "public struct Lock {\n    let held = false\n}",
        "Sources/Kernel/Handles/Handle.swift":
            "final class Handle {\n    let lock = Lock()\n    var driver: Driver?\n}",
        "Sources/Kernel/Handles/Driver.swift": "class Driver {\n    var handle: Handle?\n}",
        "Sources/Kernel/Operations/Sink.swift": "extension Handle {\n    func sink() {}\n}",
        "Sources/Kernel/Drivers/Ring.swift": "struct Ring {\n    let room = 1\n}",
        "Sources/Tour/Stop.swift": #"Stop(product: "02-completion-ports")"#,
        "Tests/02-CompletionPortsTests/Pitfalls.swift": """
        @Test("nobody-wakes: a flag wakes nobody") func nobodyWakes() {}
        """,
        "Tests/02-CompletionPortsTests/Fixes.swift": """
        // I2.1 and I2.2
        @Test(
            "nobody-wakes: a packet does", arguments: DriverKind.permitted) func nobodyWakes() {}
        """,
        "Tutorials/README.md": "# Start here\n\n1. [Ports](02-completion-ports.md#the-problem)\n"
            + "2. [Ports](02-completion-ports.md)\n",
        "Tutorials/pitfalls.md": """
        # The pitfalls
        | slug | chapter | what goes wrong | what holds | told |
        |---|---|---|---|---|
        | `nobody-wakes` | 02 | a flag wakes nobody | a packet does | [02](02-completion-ports.md#the-pitfalls) |
        | `later-one` | 03 | something later | something | chapter 03 |
        """,
        "Tutorials/dictionary.md": """
        # Dictionary
        | `PostQueuedCompletionStatus` | `Port.post()` | `IORING_OP_MSG_RING` |
        | Win32 | number | here | Linux |
        | `ERROR_FREE` | 995 | `FREE` | `ECANCELED` |
        """,
        "Tutorials/02-completion-ports.md": tutorial,
        "diagrams/02-wake-order.svg": """
        <?xml version="1.0"?>
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">
          <title>Wake order</title>
          <style>@media (prefers-color-scheme: dark) { text { fill: white } }</style>
          <text x="1">A &amp; B</text><line x1="0" x2='1'/>
        </svg>
        """,
    ])

    private static let broken = """
        **⚠︎ Broken on purpose**

        <!-- Sources/02-CompletionPorts/Pitfalls/NobodyWakes.swift -->
        ```swift
        struct BrokenPort {
            let asleep = true
        ```
        """

    private static func slice(_ number: Int) -> String {
        """
        ### Slice \(number): a piece
        <!-- Sources/02-CompletionPorts/Library/Port.swift -->
        ```swift
        func post() {
            queue()
        }
        ```
        **Try it.** Run it.

        """
    }

    private static func pitfall(_ slug: String) -> String {
        "### `\(slug)`: nobody wakes\n**Symptom.** Silence.\n\n\(broken)\n**Shown by** a test. **Cause.** A flag.\n"
            + "**Fix.** A packet. **Held by** a test. **Cost.** Nothing.\n"
    }

    private static let tutorial = """
        # 02 · Completion ports

        A promise.

        ![The newest waiter is released first.](../diagrams/02-wake-order.svg)

        ## You will be able to
        - say
        - show
        - build
        ## Run it first
        ```sh
        swift run 02-completion-ports
        ```
        ```text
        output
        ```
        ## The problem
        It is `[not](a-link)`. See [the pitfalls](#the-pitfalls).
        ## The invariants
        - **I2.1** One packet for each operation.
        - **I2.2** First in, first out.
        ## Predict
        What happens?
        <details><summary>Answer</summary>Nothing.</details>
        ## Build it
        \(slice(1))\(slice(2))\(slice(3))
        ## The pitfalls
        \(pitfall("nobody-wakes"))\(pitfall("nobody-wakes"))\(pitfall("nobody-wakes"))
        ## On Windows
        | Win32 | here |
        |---|---|
        | this | that |
        ## Why not …?
        ### … one
        No.
        ### … two
        No.
        ## Checkpoint
        ```sh
        swift test --filter Chapter02
        ```
        ## Questions
        <details><summary>One?</summary>Yes.</details>
        <details><summary>Two?</summary>Yes.</details>
        ## Exercise
        Do it.
        ## Before and after
        It was; it is.
        """

    /// This project with one piece of text in one file replaced by another.
    func replacing(_ old: String, with new: String, in file: String) -> Project {
        var project = self
        project.files[file] = project.files[file]?.replacingOccurrences(of: old, with: new)
        return project
    }
}
