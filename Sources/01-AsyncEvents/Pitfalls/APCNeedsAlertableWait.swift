import AsyncEvents
import Kernel
import Stage

/// A thread posts a read with a routine, and sleeps until the read is through.
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
                "the read is through: \(sleeper.bytes) bytes",
                "its thread slept in a plain wait: the routine ran \(sleeper.calls.value) times",
                "another thread waited alertably meanwhile: \(other)",
            ])
    }

    static func fixed() throws -> Observation {
        let scratch = try Scratch(size: 64)
        let file = try File(scratch.path)
        let run = Run()
        let thread = try Thread("alertable") {
            run.own = Thread.currentID
            let request = RoutineRequest()
            let memory = Memory(64)
            try? request.post(file.read(request, into: memory.bytes)) { request in
                run.calls.add()
                run.ranOn = Thread.currentID
                run.bytes = request.bytes
            }
            run.early = run.calls.value
            run.woken = APCQueue.sleep(until: .after(Gate.patience), alertable: true)
        }
        thread.join()
        return Observation(
            happened: run.early != 0 || run.calls.value != 1 || run.ranOn != run.own || run.bytes != 64
                || run.woken != .routinesRan,
            lines: [
                "after the call that posted: the routine has run \(run.early) times",
                "after an alertable wait: \(run.calls.value) time, with \(run.bytes) bytes; the wait returned "
                    + "\(run.woken.map { "\($0)" } ?? "nothing")",
                "on the thread that posted: \(run.ranOn == run.own ? "yes" : "no")",
            ])
    }

    /// Written by the thread, read when it has ended.
    private final class Run: @unchecked Sendable {
        var own: Int32 = 0
        var ranOn: Int32 = 0
        var bytes = 0
        var early = -1
        var woken: WaitResult?
        let calls = Counter()
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
