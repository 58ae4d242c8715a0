import AsyncAwait
import Glibc
import Kernel
import Stage

/// Tasks that block use up a pool of a fixed size.
public enum BlockingInATask {
    static let slug = "blocking-in-a-task"

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: slug,
        title: "tasks that block use up the threads of a fixed pool, and every other task waits",
        broken: { driver in
            let (status, lines) = try ownProcess.run(slug, driver)
            return Observation(happened: status == 0 && lines.last == lastWords, lines: lines)
        },
        fixed: { driver in
            // As many at a time as Swift's own pool has threads, and two workers more to take their places.
            let processors = Kernel.Thread.processors
            let executor = try makeExecutor(driver, workers: processors + 2, concurrency: processors)
            let (blocked, mayGoOn) = (Gate(count: processors), Gate())
            let tasks = (0..<processors).map { _ in
                executor.start {
                    blocked.open()
                    mayGoOn.pass()
                }
            }
            blocked.pass()
            // Nobody tells the port: it sees by itself that its workers are blocked.
            let hasRun = executor.start {}.over.pass()
            mayGoOn.open()
            for task in tasks { task.over.pass() }
            executor.stop()
            return Observation(
                happened: !hasRun,
                lines: [
                    "\(counted(processors, "task")) blocked on a port that lets as many run",
                    "another one was \(hasRun ? "run by another worker" : "not run")",
                ])
        })

    private static let lastWords = "another one has not begun"

    /// ⚠︎ Broken on purpose: blocks all of Swift's own threads. To be run in a process of its own.
    static func blockAll() {
        let processors = Kernel.Thread.processors
        let (blocked, mayGoOn, hasRun) = (Gate(count: processors), Gate(), Gate())
        for _ in 0..<processors {
            Task.detached {
                blocked.open()
                mayGoOn.pass()
            }
        }
        guard blocked.pass() else { return OwnProcess.say("the tasks did not begin") }
        OwnProcess.say("\(counted(processors, "task")) blocked on Swift's own pool")
        Task.detached { hasRun.open() }
        OwnProcess.say(hasRun.pass(within: .milliseconds(200)) ? "another one has run" : lastWords)
    }
}
