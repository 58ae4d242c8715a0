import Foundation
import Stage
import Testing

/// Runs the tour as the reader does, as a program. Beside it lie made-up chapters, so that one can
/// fail, or never end.
@Suite("The tour", .serialized) struct TourTests {
    @Test("it has a stop for every chapter, in order") func list() throws {
        let products = Project.here.manifest.compactMap(\.product)
        let run = try tour(["--list"], chapters: [:])
        #expect(run.status == 0)
        let commands = run.output.lines.filter { $0.contains("swift run ") }
        // Behind the name stands what this stop is told.
        #expect(commands.map { $0.trimmed.split(separator: " ")[2].description } == products)
    }

    @Test("it plays every chapter in order, passes --plain on and ends with 0") func plays() throws {
        let names = Project.here.manifest.compactMap(\.product)
        let run = try tour(["--plain"], chapters: all("echo played $(basename \"$0\") $*"))
        #expect(run.status == 0, "\(run.output)")
        let played = run.output.lines.filter { $0.hasPrefix("played ") }
        #expect(played.map { $0.split(separator: " ")[1].description } == names)
        #expect(played.allSatisfy { $0.hasSuffix(" --plain") })
        #expect(run.output.contains("the tour: \(names.count) of \(names.count) held\n"))
    }

    @Test("one chapter is enough, by number or by name", arguments: ["2", "02", "02-completion-ports"])
    func one(name: String) throws {
        let run = try tour([name], chapters: all("echo played $(basename \"$0\") $*"))
        #expect(run.status == 0)
        #expect(run.output.lines.filter { $0.hasPrefix("played ") } == ["played 02-completion-ports"])
    }

    @Test("a chapter that fails, crashes or is missing fails the tour, which goes on") func failure() throws {
        var chapters = all("exit 3")
        chapters["01-async-events"] = "kill -SEGV $$"
        chapters["02-completion-ports"] = nil
        let run = try tour([], chapters: chapters)
        #expect(run.status == 1)
        for part in ["FAILED with exit status 3", "ended by signal 11", "could not be started", ": 0 of"] {
            #expect(run.output.contains(part), "\(run.output)")
        }
    }

    @Test("a chapter that does not end is stopped, with what it started") func endless() throws {
        let start = ContinuousClock.now
        // Both ignore the polite request, as a hanging program would.
        let body = "trap '' TERM; (trap '' TERM; exec sleep 300) & echo $!; sleep 300"
        let run = try tour(["0", "--limit", "1"], chapters: all(body))
        #expect(run.status == 1)
        #expect(run.output.contains("no end within 1 s"))
        #expect(ContinuousClock.now - start < .seconds(30))
        let numbers = run.output.lines.compactMap { Int32($0) }
        #expect(numbers.count == 1)
        for number in numbers { #expect(hasEnded(number)) }
    }

    @Test(
        "what it does not understand is one line and exit status 2",
        arguments: [
            ["--colour"], ["99"], ["nine"], ["--limit"], ["--limit", "0"], ["--limit", "soon"], ["0", "99"],
            ["--limit", "3601"],
        ])
    func refusals(arguments: [String]) throws {
        let run = try tour(arguments, chapters: [:])
        #expect(run.status == 2)
        #expect(run.output == "")
        #expect(run.complaint.lines.filter { !$0.isEmpty }.count == 1)
        #expect(run.complaint.hasPrefix("tour: "))
    }

    @Test("what is there to see is told with --help") func help() throws {
        let run = try tour(["--help"], chapters: [:])
        #expect(run.status == 0)
        #expect(run.output.contains("--limit SECONDS"))
    }

    // MARK: A folder with a tour in it

    private struct Run {
        let status: Int32
        let output: String
        let complaint: String
    }

    private func all(_ body: String) -> [String: String] {
        Dictionary(uniqueKeysWithValues: Project.here.manifest.compactMap(\.product).map { ($0, body) })
    }

    /// Whether a process is gone, or only waits to be collected.
    private func hasEnded(_ number: Int32) -> Bool {
        for _ in 0..<200 {
            guard let status = try? String(contentsOfFile: "/proc/\(number)/stat", encoding: .utf8),
                status.split(separator: ")").last?.trimmingCharacters(in: .whitespaces).first != "Z"
            else { return true }
            usleep(10_000)
        }
        return false
    }

    private func tour(_ arguments: [String], chapters: [String: String]) throws -> Run {
        while true {
            let run = try attempt(arguments, chapters: chapters)
            // A test elsewhere that was starting a process while a script was being written has kept it open.
            if !run.output.contains("Text file busy") { return run }
        }
    }

    private func attempt(_ arguments: [String], chapters: [String: String]) throws -> Run {
        let files = FileManager.default
        // The test runner lies where the build puts all programs. A second link makes the tour believe that it
        // lies among the made-up chapters.
        let runner = try files.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let built = URL(fileURLWithPath: runner).deletingLastPathComponent()
        let folder = built.appendingPathComponent("tour-\(UUID().uuidString)")
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? files.removeItem(at: folder) }
        try files.linkItem(
            at: built.appendingPathComponent("tour"), to: folder.appendingPathComponent("tour"))
        for (name, body) in chapters {
            let script = folder.appendingPathComponent(name)
            try "#!/bin/sh\n\(body)\n".write(to: script, atomically: true, encoding: .utf8)
            try files.setAttributes([.posixPermissions: 0o755], ofItemAtPath: script.path)
        }
        let child = try Child.run(
            folder.appendingPathComponent("tour").path, arguments, within: .seconds(60))
        return Run(status: child.status, output: child.output, complaint: child.errors)
    }
}
