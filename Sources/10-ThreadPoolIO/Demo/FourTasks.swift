import AsyncEvents
import Glibc
import Kernel
import Stage
import ThreadPoolIO
import ThreadPoolIOPitfalls
import Timeline

/// A pool with the choices of the command line.
func poolOptions(_ options: Stage.Options) -> ThreadPool.Options {
    var choices = ThreadPool.Options()
    choices.port.driver = options.driver
    return choices
}

/// An operation with a buffer of its own.
private final class Request: PoolOperation, @unchecked Sendable {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 16)
    deinit { memory.deallocate() }
}

/// The four kinds of task on one pool, drawn: a lane for each thread.
func playFourTasks(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("Four kinds of task, and no thread before the first")
    var choices = poolOptions(options)
    choices.maximum = 4
    choices.concurrency = 4
    let pool = try ThreadPool(choices)
    let threadsBefore = pool.counters.threads
    let (pair, event, group) = (try Pair(), Event(.automatic), PoolGroup())
    let all = Gate(count: 6)
    let (early, timedOut, heard) = (Counter(), Counter(), Counter())
    Recorder.start()

    let work = PoolWork(pool, group: group) { _ in
        usleep(4_000)
        all.open()
    }
    let due = Deadline.after(.milliseconds(8))
    let timer = PoolTimer(pool, group: group) { _ in
        if !due.hasPassed { early.add() }
        usleep(2_000)
        all.open()
    }
    // What a server does with a silent client: an event that is set when it speaks, and a time to wait for it.
    let wait = PoolWait(pool, group: group) { _, result in
        if result == .timedOut { timedOut.add() }
        usleep(2_000)
        all.open()
    }
    let io = try PoolIO(pair.server, pool, group: group) { _, _, error, bytes in
        if error == nil { heard.add(bytes) }
        usleep(2_000)
        all.open()
    }
    for (name, object) in [("work", work), ("timer", timer), ("wait", wait)] as [(String, PoolObject)] {
        Recorder.label(object.identity, name)
    }
    let request = Request()
    Recorder.label(request.identity, "receive")
    try io.receive(request, into: request.memory)
    try timer.set(due: due)
    try wait.set(event)
    for _ in 0..<2 { try work.submit() }
    usleep(3_000)
    event.set()
    usleep(2_000)
    try pair.client.say("hello")
    _ = eventually { heard.value == 5 && event.isSet == false && timer.isSet == false }
    usleep(3_000)
    try wait.set(event, until: .after(.milliseconds(4)))
    let isDone = all.pass()
    usleep(1_000)
    let recording = Recorder.stop()
    pair.server.close()
    try group.close()
    let counters = pool.counters
    try pool.closeAndWait()

    terminal.say("Two callbacks are submitted, one is due in 8 ms, one waits for an event, and then")
    terminal.say("for one that never comes; one brings a client's bytes. driver: \(options.driver)")
    terminal.say()
    terminal.draw(recording)
    terminal.say()
    terminal.claim(
        "no thread before the first task, and at most 4 with it (\(counters.peak) at the peak)",
        holds: threadsBefore == 0 && counters.peak <= 4)
    terminal.claim(
        "six callbacks, none before its time",
        holds: isDone && early.value == 0 && timedOut.value == 1 && heard.value == 5)
    terminal.claim("no thread is left", holds: pool.counters.threads == 0)
    try options.save(
        recording, title: "Four kinds of task on one pool",
        description: "Each thread of the pool has a lane; the first one appears with the first task.")
}
