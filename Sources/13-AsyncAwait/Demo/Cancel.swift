import AsyncAwait
import AsyncAwaitPitfalls
import Glibc
import Kernel
import Stage
import Timeline

/// A task waits for bytes and is cancelled: once with a byte on its way, and once with none.
func playCancel(_ options: Stage.Options, on terminal: Terminal) throws {
    terminal.heading("A cancel asks, the packet tells")
    let executor = try makeExecutor(options.driver)
    let pair = try Pair()
    let operation = AwaitedOperation(on: executor, capacity: 16)
    Recorder.start()
    Recorder.nameThread("main")
    Recorder.label(operation.identity, "receive")
    let receive: @Sendable () async -> Result<Int, SystemError> = {
        await Result { () async throws(SystemError) in try await pair.server.receive(into: operation) }
    }
    let first = executor.start(receive)
    _ = eventually { operation.isPending }
    // The worker that would bring the byte is kept away until the cancel has been there.
    let (held, mayGoOn) = (Gate(count: 2), Gate())
    let holders = (0..<2).map { _ in
        executor.start {
            held.open()
            mayGoOn.pass()
        }
    }
    held.pass()
    try pair.client.say("x")
    // Whoever posts looks into the driver, as no worker waits there: the byte's packet comes into the queue, and stays.
    _ = eventually {
        try? executor.hub.port.post()
        return !operation.isPending
    }
    Recorder.note("the task is cancelled")
    first.task.cancel()
    mayGoOn.open()
    for holder in holders { holder.over.pass() }
    let withByte = first.value(on: executor)
    let byte = try operation.copy(1)
    let second = executor.start(receive)
    _ = eventually { operation.isPending }
    Recorder.note("the next task is cancelled")
    second.task.cancel()
    let without = second.value(on: executor)
    // The same connection is still there, for who asks next.
    try pair.client.say("yz")
    let third = executor.start(receive).value(on: executor)
    let recording = Recorder.stop()
    executor.stop()
    terminal.draw(recording)
    terminal.say()
    terminal.table(
        ["the client sends", "the task is", "the await gives"],
        [
            ["x", "cancelled behind it", words(withByte)], ["nothing", "cancelled", words(without)],
            ["yz", "another one", words(third)],
        ])
    terminal.say()
    terminal.claim(
        "the byte that was quicker is the task's, and none is lost",
        holds: withByte == .success(1) && byte == [UInt8(ascii: "x")] && third == .success(2))
    terminal.claim(
        "without a byte the cancel is what it comes to",
        holds: without == .failure(SystemError(ECANCELED, attempted: "")))
    try options.save(
        recording, title: "A cancelled receive",
        description: "The await returns with the packet, whatever the packet tells; never with the cancel.")
}

private func words(_ result: Result<Int, SystemError>?) -> String {
    switch result {
    case .success(let count): counted(count, "byte")
    case .failure(let error): SystemError.text(error.code)
    case nil: "nothing yet"
    }
}
