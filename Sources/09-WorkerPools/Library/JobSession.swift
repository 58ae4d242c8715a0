import Contexts
import Framing
import Glibc
import Kernel
import Reordering

/// One client's lines, in their order: each is answered at once, or becomes a job, or stays here until there is room. (I9.3)
///
/// While a line stays, the client is not read from. So what stays is bounded by what its pending reads can bring, and the
/// rest waits at the client.
final class JobSession: FrameHandler, @unchecked Sendable {
    private let server: JobServer
    private let lock = Lock()
    // Guarded by the lock. The connection's own lock may be taken inside of it, never the other way round.
    private var connection: StreamConnection?
    private var lines = CircularQueue<Line>(capacity: 1)
    /// The first of them, for which there was no room.
    private var stuck: Line?
    /// A thread is at it. One that comes meanwhile asks it to look again.
    private var isProceeding = false
    private var mustLookAgain = false
    private var isPaused = false
    private var isEnding = false

    /// What waits for its turn: a line of the client's, or one that it is to be told.
    private enum Line {
        case asked(String)
        case told(String)
    }

    init(_ server: JobServer) { self.server = server }

    func opened(_ connection: FramedConnection<Lines>) {
        let stream = connection.stream!
        lock.locked { self.connection = stream }
        server.add(self, stream.id)
    }

    func received(_ message: RawSpan, on connection: FramedConnection<Lines>) {
        let line = message.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
        lock.locked { lines.append(.asked(line)) }
        proceed()
    }

    /// An answer has left: its place is free.
    func sent(_ token: Int, on connection: FramedConnection<Lines>) { proceed() }

    /// What has been asked is still answered.
    func ended(_ connection: FramedConnection<Lines>) {
        lock.locked { isEnding = true }
        proceed()
    }

    /// The answers to what came before, and then what is wrong.
    func failed(_ connection: FramedConnection<Lines>, _ error: FrameError) {
        lock.locked {
            lines.append(.told("error: \(error)"))
            isEnding = true
        }
        proceed()
    }

    func closed(_ connection: FramedConnection<Lines>, _ reason: CloseReason) {
        let id = lock.locked { () -> ConnectionID? in
            defer { self.connection = nil }
            lines.removeAll()
            stuck = nil
            return self.connection?.id
        }
        if let id { server.remove(id) }
    }

    /// Goes on with the lines, as far as there is room: one thread at a time, whoever comes first. Any thread.
    func proceed() {
        lock.lock()
        defer { lock.unlock() }
        mustLookAgain = true
        guard !isProceeding, let connection else { return }
        isProceeding = true
        while mustLookAgain {
            mustLookAgain = false
            while let line = stuck.take() ?? lines.popFirst() {
                lock.unlock()
                let isTaken = take(line, connection)
                if !isTaken { server.refused() }
                lock.lock()
                if isTaken { continue }
                stuck = line
                break
            }
        }
        isProceeding = false
        pauseOrResume(connection)
    }

    /// Under the lock. There was no room for the first line, and nobody has said since that there is some.
    private func pauseOrResume(_ connection: StreamConnection) {
        if isPaused != (stuck != nil) {
            isPaused = stuck != nil
            if isPaused { connection.pauseReading() } else { connection.resumeReading() }
        }
        if isEnding, stuck == nil { connection.finish() }
    }

    /// Without a lock. False when there is no room for it; then somebody will call `proceed`: the queue when it is low, or
    /// the connection when an answer has left.
    private func take(_ line: Line, _ connection: StreamConnection) -> Bool {
        do {
            switch line {
            case .told(let words): try connection.send(Array((words + "\n").utf8), token: 0)
            case .asked(let text):
                let question = Question(text)
                guard question?.isWork == true else {
                    return take(.told(server.answer(question, text)), connection)
                }
                // The place of the answer, before anybody works it out. (I9.5)
                let ticket = try connection.takeTicket()
                do {
                    try server.pool.add(Job(text, for: connection.id, ticket: ticket, token: 0))
                } catch {
                    connection.skip(ticket)
                    throw error
                }
            }
            return true
        } catch let error as SystemError {
            // Too much is on its way to this client, and there will be room when it has left; or the client is gone.
            return error.code != ENOBUFS
        } catch {
            guard error as? JobError == .closed else { return false }
            // The server is about to stop.
            connection.close()
            return true
        }
    }
}
