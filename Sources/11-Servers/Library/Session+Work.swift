import FileTransfer
import Glibc
import Kernel
import Reordering
import Synchronization
import WorkerPools

/// Jobs and files of a session.
extension Session {
    // MARK: Work

    /// Gives the client a place for an answer, and a job to the logical workers. In `received` only. When there is no room for
    /// the job it waits here, and the client is not read from: so nothing is lost, and what waits is bounded by what its pending
    /// reads can bring. What the handler's `process` returns is sent as a message, in the order of the questions.
    public func addJob(_ command: String, _ data: [UInt8] = []) {
        flush()
        lock.locked { waiting.append((command, data)) }
        proceedWithJobs()
    }

    /// Goes on with the jobs that wait, as far as there is room.
    func proceedWithJobs() {
        lock.lock()
        defer { lock.unlock() }
        guard let stream, !waiting.isEmpty else { return }
        while let (command, data) = waiting.oldest {
            guard add(command, data, stream) else { return stream.pauseReading(.jobs) }
            _ = waiting.popFirst()
        }
        stream.resumeReading(.jobs)
    }

    /// Under the lock. False when there is no room; then the queue will tell when it is low, or a send that is over.
    private func add(_ command: String, _ data: [UInt8], _ stream: StreamConnection) -> Bool {
        let ticket: SendTicket
        do throws(SystemError) { ticket = try stream.takeTicket() } catch { return error.code != ENOBUFS }
        do throws(JobError) {
            // No send of the session's has this token: that its answer is sent says only that there is room again.
            try run.jobs.add(Job(command, for: stream.id, data: data, ticket: ticket, token: 0))
            return true
        } catch {
            stream.skip(ticket)
            return error == .closed
        }
    }

    // MARK: Files

    /// Sends a file; `fileFinished` tells.
    ///
    /// - Throws: `declined` where the endpoint or these frames carry no files; as `FileTransfer.send`.
    @discardableResult
    public func sendFile(_ path: String, as name: String? = nil) throws(TransferError) -> TransferID {
        try begin(path) { files throws(TransferError) in
            try files.send(file: path, as: name, observer)
        }
    }

    /// Asks the other side for a file; `fileFinished` tells.
    @discardableResult
    public func fetchFile(_ name: String, into folder: String? = nil) throws(TransferError) -> TransferID {
        try begin(name) { files throws(TransferError) in
            try files.ask(for: name, into: folder, observer)
        }
    }

    private func begin(
        _ name: String, _ body: (FileTransfer) throws(TransferError) -> TransferID
    ) throws(TransferError) -> TransferID {
        guard let files = files.locked({ $0 }) else { throw TransferError(.declined, name) }
        run.gate.count { $0.filesUnderWay += 1 }
        do throws(TransferError) {
            return try body(files)
        } catch {
            run.gate.count { $0.filesUnderWay -= 1 }
            throw error
        }
    }

    /// Calls files off.
    public func callOff(_ what: CallOff = .all) { files.locked { $0 }?.callOff(what) }

    private var observer: TransferObserver {
        TransferObserver(progress: { [self] in note($0) }, finished: { [self] in fileOver($0) })
    }

    func note(_ progress: TransferProgress) {
        // Who takes a file need not say anything, either.
        welcome()
        lock.locked { file = progress }
        run.handler.progress(progress, self)
    }

    func fileOver(_ result: TransferResult) {
        lock.locked { file = nil }
        run.gate.count {
            $0.filesUnderWay -= 1
            if case .success = result { $0.filesDone += 1 } else { $0.filesFailed += 1 }
        }
        run.handler.fileFinished(result, self)
    }
}
