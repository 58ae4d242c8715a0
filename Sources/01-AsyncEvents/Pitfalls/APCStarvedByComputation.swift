import AsyncEvents
import Kernel
import Stage
import Synchronization

/// A thread posts a read with a routine, and then computes.
enum APCStarvedByComputation {
    static let pitfall = Pitfall(
        slug: "apc-starved-by-computation",
        title: "the thread that posted computes, so its routine does not run although its read has completed",
        broken: { _ in try broken() }, fixed: { _ in try fixed() })

    static func broken() throws -> Observation {
        let scratch = try Scratch(size: 64)
        let computer = BrokenComputer(try File(scratch.path))
        let thread = try Thread("computer") { computer.run() }
        // The computation goes on until the read has long been through, and then for a while.
        computer.hasPosted.pass()
        let isThrough = eventually { !computer.request.isPending }
        let steps = computer.steps.load(ordering: .acquiring)
        let goesOn = eventually { computer.steps.load(ordering: .acquiring) > steps + 1_000 }
        let meanwhile = computer.calls.value
        computer.mayEnd.store(true, ordering: .releasing)
        thread.join()
        return Observation(
            happened: isThrough && goesOn && meanwhile == 0 && computer.calls.value == 1,
            lines: [
                "the read has completed, and its thread computes: the routine ran \(meanwhile) times",
                "the computation was over, and the thread waited alertably: \(computer.calls.value) time",
            ])
    }

    static func fixed() throws -> Observation {
        let scratch = try Scratch(size: 64)
        let file = try File(scratch.path)
        let calls = Counter()
        let pieces = Counter()
        let thread = try Thread("computer") {
            let request = RoutineRequest()
            let memory = Memory(64)
            try? request.post(file.read(request, into: memory.bytes)) { _ in calls.add() }
            // The same computation in pieces; after each of them the thread lets its calls run.
            let limit = Deadline.after(Gate.patience)
            while calls.value == 0, !limit.hasPassed {
                _ = BrokenComputer.compute(100)
                pieces.add()
                _ = APCQueue.sleep(until: .now, alertable: true)
            }
        }
        thread.join()
        return Observation(
            happened: calls.value != 1,
            lines: [
                "the computation was cut into pieces: the routine ran \(calls.value) time between two of them",
                "it ran after piece number \(pieces.value); the computation could go on",
            ])
    }
}

/// Computes without a pause, and lets its routines run when it is done.
final class BrokenComputer: @unchecked Sendable {
    let request = RoutineRequest()
    let calls = Counter()
    let steps = Atomic<Int>(0)
    let mayEnd = Atomic<Bool>(false)
    let hasPosted = Gate()
    private let file: File

    init(_ file: File) { self.file = file }

    func run() {
        let memory = Memory(64)
        try? request.post(file.read(request, into: memory.bytes)) { [calls] _ in calls.add() }
        hasPosted.open()
        while !mayEnd.load(ordering: .acquiring) {
            _ = Self.compute(1)
            steps.add(1, ordering: .releasing)
        }
        _ = APCQueue.sleep(until: .after(Gate.patience), alertable: true)
    }

    /// Something to do for a processor.
    static func compute(_ amount: Int) -> UInt64 {
        var value: UInt64 = 88_172_645_463_325_252
        for _ in 0..<amount * 10 {
            value ^= value << 13
            value ^= value >> 7
            value ^= value << 17
        }
        return value
    }
}
