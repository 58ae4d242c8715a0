import Glibc
import Kernel
import Reordering
import Stage

/// While the handler of the only read is held up, nobody reads.
public enum OnePendingReadIsSlow {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "one-pending-read-is-slow",
        title:
            "with one read at a time the data waits in the socket while a handler is busy, and a worker idles",
        broken: { driver in try run(driver, reads: 1) },
        fixed: { driver in try run(driver, reads: 4) })

    private static func run(_ driver: DriverKind, reads: Int) throws -> Observation {
        let pair = try Pair()
        let (isBusy, goOn) = (Gate(), Gate())
        // Whoever is held is held on purpose: nobody is to take his place.
        let hub = try makeHub(driver, reads: reads) { $0.port.noticesBlocking = false }
        let sink = Sink { chunk in
            guard chunk.number.value == 0 else { return }
            isBusy.open()
            goOn.pass()
        }
        let connection = try hub.adopt(pair.server, handler: sink)
        try pair.client.say("one,two,six,ten.")
        isBusy.pass()
        // Either nobody can read the rest, or the second worker has.
        let rest = 4 * (4 - reads)
        let isSettled = eventually { pair.server.unread == rest && connection.window.waiting == reads - 1 }
        let (unread, waiting) = (pair.server.unread, connection.window.waiting)
        let idle = hub.port.workers.waiting
        goOn.open()
        let isThere = eventually { sink.received.count == 16 }
        let isClean = hub.stop()
        guard isSettled, isThere, isClean, text(sink.received) == "one,two,six,ten." else {
            throw SystemError(
                ETIMEDOUT, attempted: "see \(unread) bytes unread and \(waiting) chunks waiting")
        }
        return Observation(
            happened: unread == 12 && waiting == 0,
            lines: [
                "\(reads) \(reads == 1 ? "read" : "reads") pending; the first chunk's handler is busy",
                "bytes that still wait in the socket: \(unread)",
                "chunks that the second worker has taken meanwhile: \(waiting); it \(idle == 1 ? "waits for more" : "works")",
            ])
    }
}
