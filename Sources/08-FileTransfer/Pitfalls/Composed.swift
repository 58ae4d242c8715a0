import Contexts
import FileTransfer
import Framing
import Glibc
import Kernel
import LockedMemory
import Reordering
import Stage

/// Whether the parts compose: everything that chapters 05 to 08 add, on one connection, at once.
///
/// The connection carries messages, and answers that three threads work out and that leave in the order of the questions;
/// it is received from as chapter 07's adaptive policy says, under a budget of a few pages, while other clients come and go so
/// that the mode changes; and a file goes each way. Four workers on either side.
public enum Composed {
    /// What has been done, and what was wrong with it.
    public struct Report: Sendable, CustomStringConvertible {
        /// Questions that were answered.
        public fileprivate(set) var answers = 0
        /// Answers that were worked out before an earlier one.
        public fileprivate(set) var overtakes = 0
        /// Files that went to the server, and that came from it.
        public fileprivate(set) var files = (up: 0, down: 0)
        /// How often the server has changed between buffers and zero bytes.
        public fileprivate(set) var changes = 0
        /// The most pages that were locked at a time by either side.
        public fileprivate(set) var peak = 0
        /// In words; empty when all is well.
        public fileprivate(set) var faults: [String] = []

        /// One line.
        public var description: String {
            "\(readable(answers)) answers, \(readable(overtakes)) of them ready before their turn; \(readable(files.up)) files "
                + "up and \(readable(files.down)) down; \(readable(changes)) changes of mode, at most \(peak) of "
                + "\(ComposedSide.pages) pages locked; "
                + (faults.isEmpty ? "every byte is right, and every pool is full" : "WRONG")
        }
    }

    /// Bytes of each file.
    private static let fileSize = 300_000
    /// Questions that are open at a time.
    private static let openQuestions = 24

    /// Runs it for some time, ends it, and looks whether everything is back.
    public static func run(_ driver: DriverKind, for time: Duration) throws -> Report {
        let faults = Guarded<[String]>([])
        let fault = { @Sendable (what: String) in faults.locked { if $0.count < 10 { $0.append(what) } } }
        let (there, here) = (try ScratchFolder(), try ScratchFolder())
        let (upward, downward) = (
            ScratchFolder.pattern(fileSize, seed: 1), ScratchFolder.pattern(fileSize, seed: 2)
        )
        let source = try here.make("up", bytes: fileSize, seed: 1)
        try there.make("down", bytes: fileSize, seed: 2)

        let answerers = Answerers(fault)
        let server = try ComposedSide(driver, there.path)
        let address = try server.service.listen {
            FileTransfer(server.files, around: Answering(answerers))
        }
        let client = try ComposedSide(driver, here.path)
        let asking = Asking(fault)
        let transfer = FileTransfer(client.files, around: asking)
        try client.service.connect(to: address, handler: transfer)
        guard eventually({ transfer.connection != nil }) else {
            throw SystemError(ETIMEDOUT, attempted: "connect")
        }

        let end = Deadline.after(time)
        let (up, down) = (Counter(), Counter())
        // Each of them does it once at least.
        let threads = [
            startThread("up") {
                repeat {
                    do {
                        try transfer.sendAndWait(source, as: "arrived")
                        if there.contents("arrived") != upward { fault("a file that went up is another") }
                        up.add()
                    } catch { return fault("up: \(error)") }
                } while !end.hasPassed
            },
            startThread("down") {
                repeat {
                    do {
                        try transfer.fetch("down")
                        if here.contents("down") != downward { fault("a file that came down is another") }
                        down.add()
                    } catch { return fault("down: \(error)") }
                } while !end.hasPassed
            },
            startThread("asks") {
                repeat { asking.ask(transfer, upTo: openQuestions) } while !end.hasPassed
                if !eventually({ asking.isAllAnswered }) { fault("a question was not answered") }
            },
            startThread("tide") {
                repeat {
                    let idle = (0..<6).compactMap { _ in try? Socket.connected(to: address) }
                    _ = eventually(within: .seconds(1)) { server.receives.mode == .zeroByte }
                    for socket in idle {
                        // With a reset, which leaves nothing behind.
                        try? socket.setAbortiveClose()
                        socket.close()
                    }
                    _ = eventually(within: .seconds(1)) { server.receives.mode == .buffered }
                } while !end.hasPassed
            },
        ]
        for thread in threads { thread.join() }

        transfer.connection?.finish()
        if !eventually({ server.service.hub.connectionCount == 0 }) { fault("a connection did not end") }
        answerers.stop()
        for (name, side) in [("client", client), ("server", server)] {
            for what in side.stop() { fault("\(name): \(what)") }
        }
        var report = Report()
        (report.answers, report.overtakes) = (asking.answered, answerers.overtakes)
        report.files = (up.value, down.value)
        let changes = server.receives.changesMade
        report.changes = changes.toZeroByte + changes.toBuffered
        report.peak = max(server.receives.budget.counters.peak, client.receives.budget.counters.peak)
        if report.overtakes == 0 { fault("no answer was ready before its turn") }
        if report.changes < 2 { fault("the mode did not change") }
        report.faults = faults.locked { $0 }
        return report
    }
}

/// One side: chapter 06's service with chapter 07's policy and chapter 08's files.
private final class ComposedSide: Sendable {
    static let pages = 8
    let receives: BudgetedReceives
    let files: FileService
    let service: FramedService<LengthPrefixed>

    init(_ driver: DriverKind, _ folder: String) throws(SystemError) {
        receives = BudgetedReceives(
            .adaptive(ReceiveThresholds(zeroByteFrom: 4, bufferedUpTo: 2)),
            budget: PageBudget(pages: ComposedSide.pages),
            slab: try PageSlab(bufferSize: Page.size, capacity: 4 * ComposedSide.pages))
        var options = TransferOptions(folder: folder)
        options.replaces = true
        options.pieceLimit = 64 << 10
        options.streams.port.driver = driver
        options.streams.workers = 4
        options.streams.concurrency = 4
        options.streams.chunkCapacity = Page.size
        options.streams.receives = receives
        files = try FileService(options)
        service = try FramedService(TransferMessage.codec, options: options.streams, round: files.round)
    }

    /// Ends it, and tells what is not back.
    func stop() -> [String] {
        var left: [String] = []
        if !service.stop() { left.append("the service was not clean at its end") }
        if !files.isIdle { left.append("a file has not given something back") }
        let (locked, waiting) = (receives.budget.counters.locked, receives.budget.counters.waiting)
        if locked != 0 || waiting != 0 { left.append("\(locked) pages are locked, \(waiting) slots wait") }
        let buffers = receives.slab.counters.inUse
        if buffers != 0 { left.append("\(buffers) buffers are out") }
        if service.hub.counters.chunks.inUse != 0 { left.append("chunks are out") }
        return left
    }
}

/// The numbered questions of one side, and what the other has to answer.
private enum Words {
    /// A question of 0 to 2,000 bytes: one in eight is cut by the end of a page.
    static func question(_ number: Int) -> [UInt8] {
        ScratchFolder.pattern(number &* 7_919 % 2_001, seed: number)
    }

    static func answer(_ question: [UInt8]) -> [UInt8] { question.reversed().map { ~$0 } }
}

/// The client's own handler: looks whether answers come in the order of the questions, whole.
private final class Asking: FrameHandler {
    private let count = Guarded<(asked: Int, answered: Int)>((0, 0))
    private let fault: @Sendable (String) -> Void

    init(_ fault: @escaping @Sendable (String) -> Void) { self.fault = fault }

    var answered: Int { count.locked { $0.answered } }
    var isAllAnswered: Bool { count.locked { $0.answered == $0.asked } }

    /// Asks the next question, or waits a little while so many are open. By one thread.
    func ask(_ transfer: FileTransfer, upTo limit: Int) {
        let number: Int? = count.locked {
            guard $0.asked - $0.answered < limit else { return nil }
            $0.asked += 1
            return $0.asked - 1
        }
        guard let number else { return _ = usleep(100) }
        do throws(SystemError) {
            try transfer.say(Words.question(number))
        } catch {
            count.locked { $0.asked -= 1 }
            if error.code == ENOBUFS { usleep(100) } else { fault("ask: \(error)") }
        }
    }

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        let number = count.locked { count in
            count.answered += 1
            return count.answered - 1
        }
        let isRight = message.withUnsafeBytes { $0.elementsEqual(Words.answer(Words.question(number))) }
        if !isRight { fault("answer \(number) is another") }
    }
}

/// The server's own handler: takes a place for each answer, and lets another thread work it out.
private final class Answering: FrameHandler {
    private let answerers: Answerers

    init(_ answerers: Answerers) { self.answerers = answerers }

    func received(_ message: RawSpan, on connection: FramedConnection<LengthPrefixed>) {
        answerers.add(message.withUnsafeBytes { Array($0) }, connection)
    }
}

/// Three threads that answer, each as quickly as it can.
private final class Answerers: @unchecked Sendable {
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var questions: [(Int, SendTicket, [UInt8], FramedConnection<LengthPrefixed>)] = []
    private var (taken, latest, early) = (0, -1, 0)
    private var isOver = false
    private var threads: [Kernel.Thread] = []
    private let fault: @Sendable (String) -> Void

    init(_ fault: @escaping @Sendable (String) -> Void) {
        self.fault = fault
        threads = (0..<3).map { number in startThread("answers \(number)") { [self] in work() } }
    }

    var overtakes: Int { monitor.locked { early } }

    func add(_ question: [UInt8], _ connection: FramedConnection<LengthPrefixed>) {
        do throws(SystemError) {
            guard let ticket = try connection.stream?.takeTicket() else { return }
            monitor.locked {
                questions.append((taken, ticket, question, connection))
                taken += 1
            }
            monitor.signal()
        } catch { fault("no place for an answer: \(error)") }
    }

    func stop() {
        monitor.locked { isOver = true }
        monitor.broadcast()
        for thread in threads { thread.join() }
    }

    private func work() {
        while true {
            let next = monitor.locked {
                while questions.isEmpty, !isOver { monitor.wait() }
                return questions.isEmpty ? nil : questions.removeFirst()
            }
            guard let (number, ticket, question, connection) = next else { return }
            // Some take longer than others.
            if number % 16 == 0 { usleep(200) }
            let answer = Words.answer(question)
            monitor.locked {
                if number < latest { early += 1 }
                latest = max(latest, number)
            }
            do throws(SystemError) {
                try connection.send(answer.span.bytes, ticket: ticket)
            } catch { fault("answer \(number): \(error)") }
        }
    }
}
