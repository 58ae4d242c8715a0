import CKernel
import Kernel
import OneThreadPerClient
import Stage

/// Takes a notice for a promise: the socket is readable, so a receive will not wait.
///
/// The notice was true when it was given. What happens until the receive is another matter.
final class BrokenTrustsTheNotice: @unchecked Sendable {
    private let socket: Socket
    private let poller: Poller

    init(_ socket: Socket) throws(SystemError) {
        self.socket = socket
        try socket.setBlocking(true)
        poller = try Poller()
        try poller.add(socket.descriptor, .readable, token: 1)
    }

    /// Waits for a notice, and then takes what it was about. `between` is what else happens meanwhile.
    func takeNext(between: () -> Void) -> String {
        withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 1) { notices in
            while poller.wait(notices, until: .never) == 0 {}
        }
        between()
        return withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
            let count = (try? socket.receiveNow(into: buffer)) ?? 0
            return String(decoding: buffer[..<count], as: UTF8.self)
        }
    }
}

/// Two take from one connection, and one message comes. Both could know; only one can have it.
enum ReadinessIsHalfTheJob {
    /// How long the second one may be stuck before we look. It would be stuck for ever.
    private static let patience = Duration.milliseconds(300)

    static func broken(_ driver: DriverKind) throws -> Observation {
        let (socket, caller) = try connectedPair()
        let server = try BrokenTrustsTheNotice(socket)
        let (firstNoticed, secondNoticed, firstTook, secondTook) = (Gate(), Gate(), Gate(), Gate())
        let second = Words()
        let first = Words()
        let threads = [
            startThread("first") {
                first.text = server.takeNext {
                    firstNoticed.open()
                    secondNoticed.pass()
                }
                firstTook.open()
            },
            startThread("second") {
                second.text = server.takeNext {
                    secondNoticed.open()
                    firstTook.pass()
                }
                secondTook.open()
            },
        ]
        try caller.say("ping")
        let bothNoticed = firstNoticed.pass() && secondNoticed.pass()
        firstTook.pass()
        let isStuck = !secondTook.pass(within: patience)
        // Only another message gets it out of the call again.
        try caller.say("pong")
        for thread in threads { thread.join() }
        caller.leave()
        return Observation(
            happened: bothNoticed && first.text == "ping" && isStuck && second.text == "pong",
            lines: [
                "one message, \"ping\": \(bothNoticed ? "both threads are" : "not both are") told to read",
                "the first thread reads \"\(first.text)\"",
                isStuck
                    ? "the second thread reads, and is stuck in the call: no more after \(patience)"
                    : "the second thread reads \"\(second.text)\"",
                "another message gets it out: \"\(second.text)\"",
            ])
    }

    static func fixed(_ driver: DriverKind) throws -> Observation {
        let (socket, caller) = try connectedPair()
        let finished = try FinishedOperations(driver: driver)
        try finished.adopt(socket)
        let (first, second) = (Receive(), Receive())
        for receive in [first, second] { try socket.receive(receive, into: receive.buffer) }

        try caller.say("ping")
        let done = next(finished)
        // At the notice: what is in the buffer, and what would be left to read?
        let words = first.words
        var byte: UInt8 = 0
        let left = try withUnsafeMutableBytes(of: &byte) { try socket.receiveNow(into: $0) }
        let isOtherPending = second.isPending

        try caller.say("pong")
        let doneNext = next(finished)
        let holds =
            done.elementsEqual([first], by: ===) && words == "ping" && left == nil && isOtherPending
            && doneNext.elementsEqual([second], by: ===) && second.words == "pong"
        socket.close()
        return Observation(
            happened: !holds,
            lines: [
                "one message, \"ping\": \(done.count) of 2 posted receives is done",
                "its buffer holds \"\(words)\" at the notice; in the socket is \(left == nil ? "nothing" : "more")",
                "the other receive is \(isOtherPending ? "pending" : "not pending"), and no thread waits in it",
                "another message completes it: \"\(second.words)\"",
            ])
    }

    private static func next(_ finished: FinishedOperations) -> [Overlapped] {
        let deadline = Deadline.after(.seconds(10))
        while true {
            let done = finished.wait(until: deadline)
            if !done.isEmpty || deadline.hasPassed { return done }
        }
    }

    /// Written by one thread before a gate or a join, read by another after it.
    private final class Words: @unchecked Sendable { var text = "" }

    private final class Receive: Overlapped, @unchecked Sendable {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64, alignment: 1)
        var words: String { String(decoding: buffer[..<bytes], as: UTF8.self) }
        deinit { buffer.deallocate() }
    }
}
