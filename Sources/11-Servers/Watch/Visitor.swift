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
        var mode = Mode.listening
        var waiting: [Reply] = []
        /// Bytes of whole heads so far.
        var taken = 0
        /// Since when a head is incomplete, or none has come; with the bytes taken then.
        var quiet: (since: UInt64, taken: Int, isPartial: Bool)?
    }

    private enum Mode {
        /// Waits for a request, or has an answer on its way, behind which others wait.
        case listening, answering
        /// Gets events, one at a time: the round of the last, and since when it has been on its way.
        case viewing(round: UInt64, since: UInt64?)
        /// Nothing more is answered.
        case over
    }

    init(_ page: StatusPage) { self.page = page }

    func received(_ head: RawSpan, on connection: FramedConnection<RequestHeads>) {
        state.locked { $0.taken += head.byteCount }
        // An empty line is one too many.
        if head.byteCount <= 2 { return }
        answer(.to(head, names: page.names(at: connection.stream?.localAddress)), on: connection)
    }

    func failed(_ connection: FramedConnection<RequestHeads>, _ error: FrameError) {
        // One that leaves in the middle of a word is owed no answer.
        if case .endedInside = error.fault { return ended(connection) }
        answer(Reply(.headTooLarge), on: connection)
    }

    private func answer(_ reply: Reply, on connection: FramedConnection<RequestHeads>) {
        let mode = state.locked { state in
            let mode = state.mode
            switch mode {
            case .viewing, .over: return mode
            case .listening, .answering: (state.mode, state.waiting) = (.answering, state.waiting + [reply])
            }
            return mode
        }
        switch mode {
        case .viewing, .over: break
        case .answering: connection.stream?.pauseReading()
        case .listening:
            // The other side may have said its last word, and still gets its answers.
            connection.delayFinish(true)
            answerNext(on: connection)
        }
    }

    /// Sends the next answer; without one it goes on reading.
    private func answerNext(on connection: FramedConnection<RequestHeads>) {
        guard let stream = connection.stream else { return }
        let next = state.locked { state -> Reply? in
            state.quiet = nil
            if state.waiting.isEmpty { state.mode = .listening }
            return state.waiting.isEmpty ? nil : state.waiting.removeFirst()
        }
        guard let reply = next else {
            stream.resumeReading()
            return connection.delayFinish(false)
        }
        send(page.answer(reply), on: stream)
        if reply.isStream {
            // What the system keeps for somebody who does not read has a bound, too.
            try? stream.socket.setBufferSizes(send: 32_768)
            // What is on its way, and has to be taken, is the beginning of the answer.
            let mode = Mode.viewing(round: 0, since: monotonicNanoseconds())
            state.locked { ($0.mode, $0.waiting) = (mode, []) }
            page.count { $0.viewers += 1 }
            stream.resumeReading()
        } else if reply.closes {
            leave(stream)
        }
    }

    private func send(_ bytes: SharedBytes, on stream: StreamConnection) {
        do throws(SystemError) { try stream.send(bytes, token: 0) } catch { stream.close() }
    }

    /// The last answer is on its way. The end is said behind it, and what still comes is thrown away for a while: to close at once
    /// would reset the connection, and the answer with it.
    private func leave(_ stream: StreamConnection) {
        state.locked { ($0.mode, $0.waiting) = (.over, []) }
        stream.resumeReading()
        stream.disconnect(.graceful(within: page.options.closing))
    }

    /// What was on its way has been handed to the system.
    func sent(_ token: Int, on connection: FramedConnection<RequestHeads>) {
        let isAnswering = state.locked { state in
            if case .viewing(let round, _) = state.mode { state.mode = .viewing(round: round, since: nil) }
            return if case .answering = state.mode { true } else { false }
        }
        if isAnswering { answerNext(on: connection) }
    }

    func ended(_ connection: FramedConnection<RequestHeads>) {
        // A viewer that sends no more is gone.
        if case .viewing = state.locked({ $0.mode }) { connection.close() } else { connection.finish() }
    }

    func closed(_ connection: FramedConnection<RequestHeads>, _ reason: CloseReason) {
        let last = state.locked { exchange(&$0.mode, with: .over) }
        if case .viewing = last { page.count { $0.viewers -= 1 } }
    }

    // MARK: Time

    private enum Due { case nothing, event(UInt64), drop, tooLate, idle }

    func tick(_ now: UInt64, on connection: FramedConnection<RequestHeads>) {
        guard let stream = connection.stream else { return }
        let received = stream.traffic.bytesReceived
        switch state.locked({ due(&$0, now, received) }) {
        case .nothing: break
        case .event(let round): send(page.event(round), on: stream)
        case .drop:
            page.count { ($0.viewers, $0.dropped) = ($0.viewers - 1, $0.dropped + 1) }
            stream.disconnect(.abortive)
        case .tooLate:
            send(page.answer(Reply(.timeout)), on: stream)
            leave(stream)
        case .idle: leave(stream)
        }
    }

    private func due(_ state: inout State, _ now: UInt64, _ received: Int) -> Due {
        func isOver(_ limit: Duration, since: UInt64) -> Bool {
            now > since && .nanoseconds(Int64(now - since)) >= limit
        }
        switch state.mode {
        case .answering, .over: return .nothing
        case .viewing(_, let since?):
            guard isOver(page.options.event, since: since) else { return .nothing }
            state.mode = .over
            return .drop
        case .viewing(let last, nil):
            let round = now / UInt64(max(1, page.options.interval / .nanoseconds(1)))
            guard round > last else { return .nothing }
            state.mode = .viewing(round: round, since: now)
            return .event(round)
        case .listening:
            let isPartial = received > state.taken
            guard let quiet = state.quiet, quiet.taken == state.taken, quiet.isPartial == isPartial else {
                state.quiet = (now, state.taken, isPartial)
                return .nothing
            }
            guard isOver(isPartial ? page.options.request : page.options.idle, since: quiet.since) else {
                return .nothing
            }
            state.mode = .over
            return isPartial ? .tooLate : .idle
        }
    }
}
