import Contexts
import Framing
import Kernel
import Reordering

/// One connection of a browser: answers one request after the other, in their order, and may become a viewer of events.
///
/// One answer is under way at a time. Requests that come meanwhile wait, each as a few words, and nothing more is read until they
/// are answered: who asks a thousand times and does not read costs no more than what one read brings.
final class Visitor: FrameHandler {
    typealias Codec = RequestHeads

    private let page: StatusPage
    private let state = Guarded(State())

    /// `tick` comes beside the other calls.
    private struct State {
        var waiting: [Reply] = []
        var isAnswering = false
        /// Nothing more is answered.
        var isOver = false
        /// Bytes of whole heads so far.
        var taken = 0
        /// Since when a head is incomplete, or none has come; with the bytes taken then.
        var quiet: (since: UInt64, taken: Int, isPartial: Bool)?
        var isViewer = false
        /// The round of the last event, and since when it has been on its way: one at a time.
        var round: UInt64 = 0
        var eventSince: UInt64?
    }

    private enum Token { static let (answer, event) = (1, 2) }

    init(_ page: StatusPage) { self.page = page }

    func received(_ head: RawSpan, on connection: FramedConnection<RequestHeads>) {
        let names = page.names(at: connection.stream?.localAddress)
        let isEmptyLine = head.byteCount <= 2
        let isNext = state.locked { state in
            state.taken += head.byteCount
            guard !isEmptyLine, !state.isOver, !state.isViewer else { return false }
            return !state.isAnswering
        }
        if isEmptyLine { return }
        enqueue(.to(head, names: names), isNext, on: connection)
    }

    func failed(_ connection: FramedConnection<RequestHeads>, _ error: FrameError) {
        // One that leaves in the middle of a word is owed no answer.
        if case .endedInside = error.fault { return ended(connection) }
        enqueue(Reply(.headTooLarge), !state.locked { $0.isAnswering }, on: connection)
    }

    private func enqueue(_ reply: Reply, _ isNext: Bool, on connection: FramedConnection<RequestHeads>) {
        let isWelcome = state.locked { state in
            guard !state.isOver, !state.isViewer else { return false }
            state.waiting.append(reply)
            return true
        }
        guard isWelcome else { return }
        guard isNext else { return connection.stream?.pauseReading() ?? () }
        // The other side may have said its last word, and still gets its answers.
        connection.delayFinish(true)
        answerNext(on: connection)
    }

    /// Sends the next answer; without one it goes on reading.
    private func answerNext(on connection: FramedConnection<RequestHeads>) {
        guard let stream = connection.stream else { return }
        let next = state.locked { state -> Reply? in
            state.isAnswering = !state.waiting.isEmpty && !state.isOver
            state.quiet = nil
            return state.isAnswering ? state.waiting.removeFirst() : nil
        }
        guard let reply = next else {
            stream.resumeReading()
            return connection.delayFinish(false)
        }
        send(page.answer(reply), Token.answer, on: stream)
        if reply.isStream {
            // What the system keeps for somebody who does not read has a bound, too.
            try? stream.socket.setBufferSizes(send: 32_768)
            state.locked { ($0.isViewer, $0.waiting) = (true, []) }
            page.count { $0.viewers += 1 }
            stream.resumeReading()
        } else if reply.closes {
            leave(stream)
        }
    }

    private func send(_ bytes: SharedBytes, _ token: Int, on stream: StreamConnection) {
        do throws(SystemError) { try stream.send(bytes, token: token) } catch { stream.close() }
    }

    /// The last answer is on its way. The end is said behind it, and what still comes is thrown away for a while: to close at once
    /// would reset the connection, and the answer with it.
    private func leave(_ stream: StreamConnection) {
        state.locked { ($0.isOver, $0.waiting) = (true, []) }
        stream.resumeReading()
        stream.disconnect(.graceful(within: page.options.closing))
    }

    func sent(_ token: Int, on connection: FramedConnection<RequestHeads>) {
        let isEvent = token == Token.event
        state.locked { if isEvent { $0.eventSince = nil } }
        if !isEvent, !state.locked({ $0.isViewer || $0.isOver }) { answerNext(on: connection) }
    }

    func ended(_ connection: FramedConnection<RequestHeads>) {
        // A viewer that sends no more is gone.
        if state.locked({ $0.isViewer }) { connection.close() } else { connection.finish() }
    }

    func closed(_ connection: FramedConnection<RequestHeads>, _ reason: CloseReason) {
        let wasViewer = state.locked { state in
            state.isOver = true
            return exchange(&state.isViewer, with: false)
        }
        if wasViewer { page.count { $0.viewers -= 1 } }
    }

    // MARK: Time

    private enum Due { case nothing, event(UInt64), drop, tooLate, idle }

    func tick(_ now: UInt64, on connection: FramedConnection<RequestHeads>) {
        guard let stream = connection.stream else { return }
        let received = stream.traffic.bytesReceived
        switch state.locked({ due(&$0, now, received) }) {
        case .nothing: break
        case .event(let round): send(page.event(round), Token.event, on: stream)
        case .drop:
            page.count { $0.dropped += 1 }
            stream.disconnect(.abortive)
        case .tooLate:
            send(page.answer(Reply(.timeout)), Token.answer, on: stream)
            leave(stream)
        case .idle: leave(stream)
        }
    }

    private func due(_ state: inout State, _ now: UInt64, _ received: Int) -> Due {
        func isOver(_ limit: Duration, since: UInt64) -> Bool {
            now > since && .nanoseconds(Int64(now - since)) >= limit
        }
        if state.isOver { return .nothing }
        if state.isViewer {
            if let since = state.eventSince {
                return isOver(page.options.event, since: since) ? .drop : .nothing
            }
            let round = now / UInt64(max(1, page.options.interval / .nanoseconds(1)))
            guard round > state.round else { return .nothing }
            (state.round, state.eventSince) = (round, now)
            return .event(round)
        }
        if state.isAnswering {
            state.quiet = nil
            return .nothing
        }
        let isPartial = received > state.taken
        guard let quiet = state.quiet, quiet.taken == state.taken, quiet.isPartial == isPartial else {
            state.quiet = (now, state.taken, isPartial)
            return .nothing
        }
        guard isOver(isPartial ? page.options.request : page.options.idle, since: quiet.since) else {
            return .nothing
        }
        state.isOver = true
        return isPartial ? .tooLate : .idle
    }
}
