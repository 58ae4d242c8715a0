extension Recording {
    /// The recording as a Chrome trace event file (JSON), to be opened in Perfetto or `chrome://tracing`.
    ///
    /// Process 1 has a track for each thread, with what it handled and the notes that it wrote. Process 2 shows the
    /// operations: a track holds one at a time, first posted, then pending, then queued. A slice is called as its operation
    /// is, with its phase, so that `receive 1` can be searched for.
    public func trace(process: String) -> String {
        var events = [
            metadata("process_name", process: 1, track: 0, name: process),
            metadata("process_name", process: 2, track: 0, name: "operations"),
        ]
        for (lane, info) in lanes.enumerated() {
            events.append(metadata("thread_name", process: 1, track: lane + 1, name: info.name))
        }
        var ends: [Int] = []  // of each track of process 2: when the last operation left it
        for life in lives {
            let phases = life.phases(until: span.upperBound)
            if let handled = phases.last, handled.phase == .handled, let worker = life.worker {
                events.append(
                    interval(life.label, .handled, handled.time, process: 1, track: worker + 1, life))
            }
            let outside = phases.filter { $0.phase != .handled }
            guard let from = outside.first?.time.lowerBound, let to = outside.last?.time.upperBound else {
                continue
            }
            var track = ends.firstIndex { $0 <= from }
            if track == nil {
                track = ends.count
                ends.append(0)
                let name = "in flight \(ends.count)"
                events.append(metadata("thread_name", process: 2, track: ends.count, name: name))
            }
            ends[track!] = to
            for (phase, time) in outside {
                events.append(
                    interval("\(life.label), \(phase.name)", phase, time, process: 2, track: track! + 1, life)
                )
            }
        }
        for (record, text) in notes {
            events.append(
                "{\"ph\":\"i\",\"s\":\"t\",\"pid\":1,\"tid\":\(record.lane + 1),\"ts\":\(micro(record.nanoseconds)),"
                    + "\"name\":\(quotedForJSON(text)),\"cat\":\"note\"}")
        }
        return "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"dropped\":\"\(dropped)\"},\"traceEvents\":[\n"
            + events.joined(separator: ",\n") + "\n]}\n"
    }

    private func metadata(_ kind: String, process: Int, track: Int, name: String) -> String {
        "{\"ph\":\"M\",\"pid\":\(process),\"tid\":\(track),\"name\":\"\(kind)\","
            + "\"args\":{\"name\":\(quotedForJSON(name))}}"
    }

    private func interval(
        _ name: String, _ phase: Phase, _ time: Range<Int>, process: Int, track: Int, _ life: Life
    ) -> String {
        "{\"ph\":\"X\",\"pid\":\(process),\"tid\":\(track),\"ts\":\(micro(time.lowerBound)),"
            + "\"dur\":\(micro(time.count)),\"name\":\(quotedForJSON(name)),\"cat\":\"\(phase.name)\","
            + "\"args\":{\"operation\":\"0x\(String(life.operation, radix: 16))\","
            + "\"label\":\(quotedForJSON(life.label))}}"
    }

    /// The format counts in microseconds.
    private func micro(_ nanoseconds: Int) -> String { fixed(Double(nanoseconds) / 1_000, 3) }
}
