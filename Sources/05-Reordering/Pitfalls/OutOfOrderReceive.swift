import Kernel
import Stage

/// Two workers take chunk 1 and chunk 2, and chunk 2 is processed first.
public enum OutOfOrderReceive {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "out-of-order-receive",
        title: "two workers take two chunks of one stream, and the later one is processed first",
        broken: { driver in
            let pair = try Pair()
            // Read 0 is in the hands of the first worker, who is slow. The second has read 1 meanwhile.
            let stream = try BrokenTranscript(driver, pair.server, holding: 0, until: 2)
            try pair.client.say("one,two,six.")
            let got = stream.finish().received
            return Observation(
                happened: got.count == 12 && got != "one,two,six." && got.hasPrefix("two,"),
                lines: ["sent:     one,two,six.", "received: \(got)"])
        },
        fixed: { driver in
            let pair = try Pair()
            let gate = Gate()
            let hub = try makeHub(driver, reads: 3) { $0.probe = holding(0, until: 2, gate) }
            let sink = Sink()
            let connection = try hub.adopt(pair.server, handler: sink)
            try pair.client.say("one,two,six.")
            let isThere = eventually { sink.received.count == 12 }
            let early = connection.window.early
            let isClean = hub.stop()
            let got = text(sink.received)
            return Observation(
                happened: !isThere || got != "one,two,six." || early == 0 || !isClean,
                lines: [
                    "sent:     one,two,six.", "received: \(got)",
                    "reads that came before read 0, and waited: \(early)",
                ])
        })
}
