import AsyncEvents
import Kernel
import Stage

/// An operation is used a second time. The file has sixteen B at 4 GiB and sixteen A at its start.
enum OverlappedNotCleared {
    static let pitfall = Pitfall(
        slug: "overlapped-not-cleared",
        title: "an operation that is used again still carries its old event, result or offset",
        broken: { _ in try broken() }, fixed: { try fixed($0) })

    private static func content() throws -> Scratch {
        let scratch = try Scratch()
        try scratch.put(Array(repeating: UInt8(ascii: "A"), count: 16), at: 0)
        try scratch.put(Array(repeating: UInt8(ascii: "B"), count: 16), at: 1 << 32)
        return scratch
    }

    static func broken() throws -> Observation {
        let scratch = try content()
        let file = try File(scratch.path)
        let device = try BrokenDevice()
        let operation = BrokenOverlapped()
        let (open, held) = (Gate(), Gate())
        open.open()
        operation.offsetHigh = 1
        device.read(operation, of: file, into: Memory(16), after: open)
        _ = operation.event.wait()

        // The second use: the start of the file is wanted, and the device is slow this time.
        let memory = Memory(16)
        operation.offsetLow = 0
        device.read(operation, of: file, into: memory, after: held)
        let isOver = operation.event.wait(until: .now) == .signalled(index: 0)
        let early = (bytes: operation.bytes, text: memory.text(16))
        held.open()
        device.end()
        let late = memory.text(16)
        return Observation(
            happened: isOver && late.hasPrefix("B"),
            lines: [
                "second read posted and not carried out yet; its event is \(isOver ? "set" : "not set")",
                "what the program believes to have read: \(early.bytes) bytes, \"\(early.text)\"",
                "what came in the end, from the wrong offset: \"\(late)\" instead of A",
            ])
    }

    static func fixed(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try content()
        let file = try stand.file(scratch.path)
        let (client, server) = try stand.connection()
        let event = Event(.manual)
        let operation = Stand.operation(event)
        let memory = Memory(16)
        operation.offset = 1 << 32
        try file.read(operation, into: memory.bytes)
        _ = try operation.result(waiting: true, until: .after(Gate.patience))

        // The second use: a receive, which stays pending as long as nobody sends.
        try server.receive(operation, into: memory.bytes)
        let isOver = event.isSet
        var early: String
        do throws(ResultError) { early = "\(try operation.result()) bytes" } catch { early = "\(error)" }
        try client.say("hello")
        _ = event.wait(until: .after(Gate.patience))
        let bytes = try operation.result()

        // And the third, at another offset.
        operation.offset = 0
        try file.read(operation, into: memory.bytes)
        _ = try operation.result(waiting: true, until: .after(Gate.patience))
        let late = memory.text(16)
        return Observation(
            happened: isOver || early != "\(ResultError.incomplete)" || bytes != 5 || !late.hasPrefix("AAAA"),
            lines: [
                "second use posted and pending; its event is \(isOver ? "set" : "not set"), its result: \(early)",
                "when it had completed: \(bytes) bytes",
                "third use, at offset 0: \"\(late)\"",
            ])
    }
}
