import Contexts
import Kernel
import Stage
import WorkerPools
import WorkerPoolsPitfalls

/// Four workers have something to say.
func showPrinting(on terminal: Terminal) throws {
    terminal.heading("Four workers print: each for itself, and through one queue")
    for isQueued in [false, true] {
        let (lines, isWhole) = try UIFromWorker.print(workers: 4, isQueued: isQueued)
        for line in lines { terminal.say("  " + line) }
        terminal.claim(
            isQueued ? "by one thread: four whole lines" : "by four threads: lines in each other's middle",
            holds: isWhole == isQueued)
    }
}
