import Foundation
import Testing
import Timeline

#if canImport(FoundationXML)
    import FoundationXML
#endif

@Suite struct TimelineFileFormats {
    private let awkward = "a<b> & \"c\" 'd' \\ \n \u{1} é 🙂"

    private func awkwardRecording() -> Recording {
        var recording = sample()
        recording.records.append(record(500, 1, 0, .note(awkward)))
        recording.records[0].what = .label(awkward)
        recording.lanes[1].name = awkward
        return recording
    }

    @Test("the SVG is well formed whatever the texts, and has the four colours, both themes and its texts")
    func svg() throws {
        for recording in [sample(), awkwardRecording(), crowd(500)] {
            let picture = recording.svg(title: "Two <receives>", description: awkward)
            let parser = XMLParser(data: Data(picture.utf8))
            #expect(parser.parse(), "\(String(describing: parser.parserError))")
            for phase in Phase.allCases { #expect(picture.contains(".\(phase.name){fill:\(phase.colour)}")) }
            #expect(picture.contains("@media (prefers-color-scheme:dark)"))
            #expect(picture.contains("<title id=\"title\">Two &lt;receives&gt;</title>"))
            #expect(
                picture.contains(
                    "<desc id=\"description\">a&lt;b&gt; &amp; &quot;c&quot; &apos;d&apos; \\   ? é 🙂"))
        }
        #expect(Set(Phase.allCases.map(\.colour)).count == 4)
    }

    @Test("the SVG of thousands of operations stays small")
    func size() {
        let picture = crowd(5_000).svg(title: "t", description: "d")
        #expect(picture.utf8.count < 200_000)
    }

    @Test("the trace file is JSON, with names, complete events for the phases and instants for the notes")
    func trace() throws {
        let events = try parsed(awkwardRecording().trace(process: awkward))
        let names = events.filter { $0["ph"] as? String == "M" }
            .compactMap { ($0["args"] as? [String: Any])?["name"] as? String }
        #expect(names == [awkward, "operations", "main", awkward, "worker 2", "in flight 1", "in flight 2"])

        let handled = events.filter { $0["cat"] as? String == "handled" }
        #expect(handled.compactMap { $0["name"] as? String } == [awkward, "recv 2"])
        #expect(handled.compactMap { $0["ts"] as? Double } == [210, 300])
        #expect(handled.compactMap { $0["dur"] as? Double } == [290, 100])
        #expect(handled.compactMap { $0["tid"] as? Int } == [2, 3])
        let pending = events.filter { $0["cat"] as? String == "pending" }
        #expect(pending.compactMap { $0["ts"] as? Double } == [110, 130])
        #expect(pending.compactMap { $0["dur"] as? Double } == [90, 110])

        let instants = events.filter { $0["ph"] as? String == "i" }
        #expect(instants.compactMap { $0["name"] as? String } == ["blocked", awkward])
        #expect(instants.compactMap { $0["ts"] as? Double } == [250, 500])
    }

    @Test("no two events of a track overlap, as the format demands")
    func tracks() throws {
        var tracks: [String: [(from: Double, to: Double)]] = [:]
        for event in try parsed(crowd(300).trace(process: "p")) where event["ph"] as? String == "X" {
            let from = try #require(event["ts"] as? Double)
            let to = from + (try #require(event["dur"] as? Double))
            tracks["\(event["pid"]!) \(event["tid"]!)", default: []].append((from, to))
        }
        #expect(tracks.count > 100)
        for intervals in tracks.values {
            let sorted = intervals.sorted { $0.from < $1.from }
            #expect(zip(sorted, sorted.dropFirst()).allSatisfy { $0.to <= $1.from + 0.0005 })
        }
    }

    private func parsed(_ text: String) throws -> [[String: Any]] {
        let object = try JSONSerialization.jsonObject(with: Data(text.utf8))
        return try #require((object as? [String: Any])?["traceEvents"] as? [[String: Any]])
    }
}
