import AsyncEvents
import Kernel
import Stage

/// A thread posts a read with a routine, and sleeps until the read has completed.
enum APCNeedsAlertableWait {
    static let pitfall = Pitfall(
        slug: "apc-needs-alertable-wait",
        title: "a routine never runs while its thread sleeps normally, and never on another thread",
        broken: { _ in try broken() }, fixed: { _ in try fixed() })

    static func broken() throws -> Observation {
        let scratch = try Scratch(size: 64)
        let sleeper = BrokenSleeper(try File(scratch.path))
        let thread = try Thread("sleeper") { sleeper.run() }
        sleeper.isThrough.pass()
        // Another thread that waits alertably does not help.
        let other = APCQueue.sleep(until: .now, alertable: true)
        sleeper.mayWake.open()
        thread.join()
        return Observation(
            happened: sleeper.bytes == 64 && sleeper.calls.value == 0 && other == .timedOut,
            lines: [
                "the read has completed: \(sleeper.bytes) bytes",
                "its thread slept in a plain wait: the routine ran \(sleeper.calls.value) times",
                "another thread waited alertably meanwhile: \(other)",
            ])
    }

    /// The same thread, with the same plain wait; and then an alertable one. Once the read has completed before that
    /// wait begins, and once the receive completes while the thread is in it.
    static func fixed() throws -> Observation {
        let scratch = try Scratch(size: 64)
        let (read, receive) = (try File(scratch.path), try Pair())
        let (early, late) = (Run(), Run())
        let reader = try Thread("reader") {
            early.post { request, memory throws(SystemError) in try read.read(request, into: memory) }
            _ = early.request.wait(until: .after(Gate.patience))
            _ = APCQueue.sleep(until: .after(.milliseconds(20)), alertable: false)
            early.waitAlertably()
        }
        early.mayWait.pass()
        let other = APCQueue.sleep(until: .now, alertable: true)
        let before = early.calls.value
        early.isAllowed.open()
        let receiver = try Thread("receiver") {
            late.post { request, memory throws(SystemError) in
                try receive.server.receive(request, into: memory)
            }
            late.isAllowed.open()
            late.waitAlertably()
        }
        late.mayWait.pass()
        try receive.client.say("now")
        reader.join()
        receiver.join()
        let isRight =
            before == 0 && other == .timedOut && early.isRight(bytes: 64) && late.isRight(bytes: 3)
        return Observation(
            happened: !isRight,
            lines: [
                "after the call that posted, and after a plain wait: the routine has run \(before) times",
                "another thread waited alertably meanwhile: \(other)",
                "the read, through before the alertable wait: \(early.words)",
                "the receive, complete during the alertable wait: \(late.words)",
            ])
    }

    /// One request with a routine. Written by its thread, read when that has ended.
    private final class Run: @unchecked Sendable {
        let request = RoutineRequest()
        let calls = Counter()
        /// The thread is about to wait alertably, and whether it may.
        let mayWait = Gate()
        let isAllowed = Gate()
        private let memory = Memory(64)
        private var own: Int32 = 0
        private var ranOn: Int32 = 0
        private var bytes = 0
        private var woken: WaitResult?

        func post(
            _ start: (RoutineRequest, UnsafeMutableRawBufferPointer) throws(SystemError) -> Void
        ) {
            own = Thread.currentID
            try? request.post(try start(request, memory.bytes)) { [self] request in
                calls.add()
                ranOn = Thread.currentID
                bytes = request.bytes
            }
        }

        func waitAlertably() {
            mayWait.open()
            isAllowed.pass()
            woken = APCQueue.sleep(until: .after(Gate.patience), alertable: true)
        }

        func isRight(bytes wanted: Int) -> Bool {
            calls.value == 1 && bytes == wanted && ranOn == own && woken == .routinesRan
        }

        var words: String {
            "the routine ran \(calls.value) time, with \(counted(bytes, "byte")), on "
                + (ranOn == own ? "its own thread" : "another thread")
                + "; the wait returned \(woken.map { "\($0)" } ?? "nothing")"
        }
    }
}

/// Posts with a routine, and then waits as if a routine ran by itself.
final class BrokenSleeper: @unchecked Sendable {
    let file: File
    let calls = Counter()
    let isThrough = Gate()
    let mayWake = Gate()
    private(set) var bytes = 0

    init(_ file: File) { self.file = file }

    func run() {
        let request = RoutineRequest()
        let memory = Memory(64)
        try? request.post(file.read(request, into: memory.bytes)) { [calls] _ in calls.add() }
        _ = request.wait(until: .after(Gate.patience))
        bytes = request.bytes
        // The completion has been handed over, and nobody will ever look: this wait is not alertable.
        _ = APCQueue.sleep(until: .after(.milliseconds(20)), alertable: false)
        isThrough.open()
        mayWake.pass()
    }
}
