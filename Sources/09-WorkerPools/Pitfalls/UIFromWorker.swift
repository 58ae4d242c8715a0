import Contexts
import Kernel
import Stage
import WorkerPools

/// Several workers have something to say at once.
public enum UIFromWorker {
    /// ⚠︎ Broken on purpose: a line is written piece by piece, by whoever has it.
    struct BrokenScreen {
        let write: @Sendable (String) -> Void

        func say(_ pieces: [String], between: () -> Void) {
            write(pieces[0])
            between()
            write(pieces[1] + "\n")
        }
    }

    /// What a worker has to say, in the two pieces in which it makes it.
    private static func pieces(_ worker: Int) -> [String] {
        ["worker \(worker + 1) has done ", "job \(worker + 1)"]
    }

    /// So many workers say a line each at the same time: each for itself, or through a queue.
    ///
    /// - Returns: What is on the screen, and whether these are the lines.
    public static func print(workers: Int, isQueued: Bool) throws -> (lines: [String], isWhole: Bool) {
        let pipe = try Pipe()
        let all = Barrier(workers)
        if isQueued {
            let messages = try MessageQueue { pipe.write($0) }
            inThreads(workers, named: "logical") { worker in
                all.arrive()
                messages.say(pieces(worker).joined())
            }
            _ = messages.stop()
        } else {
            let screen = BrokenScreen { pipe.write($0) }
            inThreads(workers, named: "logical") { worker in
                screen.say(pieces(worker)) { all.arrive() }
            }
        }
        let lines = pipe.read().split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(
            String.init)
        return (lines, lines.sorted() == (0..<workers).map { pieces($0).joined() })
    }

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "ui-from-worker", title: "several workers write to the screen at once, and lines are mixed",
        broken: { _ in
            let (lines, isWhole) = try print(workers: 2, isQueued: false)
            return Observation(happened: !isWhole, lines: ["on the screen:"] + lines.map { "  \($0)" })
        },
        fixed: { _ in
            let (lines, isWhole) = try print(workers: 2, isQueued: true)
            // And a screen that takes nothing holds nobody up, at the end neither.
            let stuck = Gate()
            let silent = try MessageQueue(capacity: 2) { _ in stuck.pass() }
            for number in 1...5 { silent.say("line \(number)") }
            let unwritten = silent.stop(within: .milliseconds(20))
            stuck.open()
            return Observation(
                happened: !isWhole || !(2...3).contains(unwritten),
                lines: ["on the screen:"] + lines.map { "  \($0)" }
                    + [
                        "a screen that takes nothing: stop returns, and says that \(unwritten) lines are not written"
                    ])
        })
}
