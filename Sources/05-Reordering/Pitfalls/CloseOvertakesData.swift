import Kernel
import Stage

/// The 0-byte completion is processed before the data that came before it.
public enum CloseOvertakesData {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "close-overtakes-data",
        title: "the end of the stream is processed before the last bytes, and they are thrown away",
        broken: { driver in
            let pair = try Pair()
            let stream = try BrokenTranscript(driver, pair.server, holding: 0, until: 2)
            try pair.client.say("bye.")
            try pair.client.shutDownSending()
            let (got, lost) = stream.finish()
            return Observation(
                happened: got.isEmpty && lost == "bye.",
                lines: ["sent:     bye.", "received: \(got)", "came when it was over: \(lost)"])
        },
        fixed: { driver in
            let pair = try Pair()
            let gate = Gate()
            let hub = try makeHub(driver, reads: 3) { $0.probe = holding(0, until: 2, gate) }
            let sink = Sink()
            let connection = try hub.adopt(pair.server, handler: sink)
            try pair.client.say("bye.")
            try pair.client.shutDownSending()
            let isOver = sink.over.pass()
            let early = connection.window.early
            let isClean = hub.stop()
            let got = text(sink.received)
            return Observation(
                happened: !isOver || got != "bye." || sink.receivedAtEnd != 4 || sink.reason != .ended
                    || early == 0 || !isClean,
                lines: [
                    "sent:     bye.", "received: \(got)",
                    "the end was processed behind \(sink.receivedAtEnd ?? 0) bytes; "
                        + "\(early) of its packets had come before them",
                ])
        })
}
