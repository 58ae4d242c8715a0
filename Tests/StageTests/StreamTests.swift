import CKernel
import Glibc
import Kernel
@testable import Stage
import Testing

/// Standard streams that are closed, full, unread, or set not to block. Each in a process of its own.
@Suite(.serialized) struct StageStandardStreams {
    // A program of its own: in a process of the test library other threads open things, too.
    @Test("closed ones are opened before anything else is", arguments: [[0], [1], [2], [0, 1, 2], [0, 2]])
    func closed(numbers: [Int32]) async throws {
        try await onAThread {
            let program = try #require(Child.product("02-completion-ports"))
            let closed = numbers.map { $0 == 0 ? "<&-" : "\($0)>&-" }.joined(separator: " ")
            let child = try Child("/bin/sh", ["-c", "exec \"$0\" --serve 0 \(closed)", program])
            #expect(
                eventually {
                    // It has a ring or an epoll by now, which would have taken the lowest number.
                    child.target(of: 3) != nil && numbers.allSatisfy { child.target(of: $0) == "/dev/null" }
                })
            child.send(signal: SIGTERM)
            _ = child.wait(within: .seconds(10))
        }
    }

    @Test(
        "a program whose output is full says so and fails, whatever it had to print",
        arguments: ["--help", "--list"])
    func full(option: String) throws {
        let program = try #require(Child.product("tour"))
        let ending = try Child.run(
            "/bin/sh", ["-c", "exec \"$0\" \"$1\" >/dev/full", program, option], within: .seconds(20))
        #expect(ending.status == 1)
        #expect(ending.errors == "tour: the output is not complete: No space left on device\n")
        // A reader that goes away has what it wanted.
        let left = try Child.run(
            "/bin/sh", ["-c", "{ \"$0\" \"$1\"; echo $? >&2; } | :", program, option], within: .seconds(20))
        #expect(left.errors == "0\n")
    }

    @Test("one that does not block loses nothing")
    func nonBlocking() async {
        await #expect(processExitsWith: .success) {
            let reader = try pipeAsOutput(flags: O_NONBLOCK)
            let heard = Counter()
            let thread = startThread("reader") {
                var buffer = [UInt8](repeating: 0, count: 1_000)
                while true {
                    let count = read(reader, &buffer, buffer.count)
                    if count <= 0 { return }
                    heard.add(count)
                }
            }
            let terminal = Terminal(plain: true)
            for _ in 0..<3_000 { terminal.say(String(repeating: "x", count: 99)) }
            guard terminal.exitStatus == 0 else { exit(1) }
            close(STDOUT_FILENO)
            thread.join()
            exit(heard.value == 300_000 ? 0 : 2)
        }
    }

    @Test("one that is not read holds no thread of a server up, and the reader finds how much is missing")
    func unread() async {
        await #expect(processExitsWith: .success) {
            let reader = try pipeAsOutput()
            let terminal = Terminal(plain: true, isQueued: true)
            let lines = 10_000
            // Twice what the pipe and the queue can hold, by two threads.
            let isThrough = boundedWait(.seconds(20)) {
                inThreads(2) { _ in
                    for _ in 0..<lines / 2 { terminal.say(String(repeating: "x", count: 49)) }
                }
            }
            guard isThrough else { exit(1) }
            // The reader comes back; what is said from now on is shown behind the gap.
            let taken = Taken()
            let thread = startThread("reader") { taken.read(reader) }
            guard eventually({ taken.text.contains("not shown\n") }) else { exit(2) }
            terminal.say("the end")
            guard eventually({ taken.text.hasSuffix("the end\n") }) else { exit(3) }
            let shown = taken.text.split(separator: "\n")
            let missing = shown.compactMap { line in
                line.hasPrefix("… ") && line.hasSuffix(" lines not shown")
                    ? Int(line.split(separator: " ")[1].filter(\.isNumber)) : nil
            }
            let whole = shown.count { $0 == String(repeating: "x", count: 49) }
            guard !missing.contains(0), whole + missing.reduce(0, +) == lines else { exit(4) }
            _ = thread
            exit(0)
        }
    }

    @Test("a server ends although nobody reads, within a second or two, and says what is missing")
    func ending() async {
        let ending = await #expect(processExitsWith: .exitCode(0), observing: [\.standardErrorContent]) {
            _ = try pipeAsOutput()
            let terminal = Terminal(plain: true, program: "server", isQueued: true)
            for _ in 0..<10_000 { terminal.say(String(repeating: "x", count: 49)) }
            alarm(20)
            terminal.finish()
        }
        let words = String(decoding: ending?.standardErrorContent ?? [], as: UTF8.self)
        #expect(
            words.contains("server: ") && words.contains(" lines not shown: the output is not read"),
            "\(words)")
    }
}

/// Makes a pipe the standard output of this process, and returns the end that can be read.
private func pipeAsOutput(flags: Int32 = 0) throws -> Int32 {
    var ends: [Int32] = [0, 0]
    guard pipe(&ends) == 0, dup2(ends[1], STDOUT_FILENO) >= 0 else {
        throw SystemError(errno, attempted: "make a pipe")
    }
    close(ends[1])
    signal(SIGPIPE, SIG_IGN)
    _ = ck_fcntl(STDOUT_FILENO, F_SETFL, O_WRONLY | flags)
    return ends[0]
}

/// What was read from a pipe.
private final class Taken: @unchecked Sendable {
    private let lock = Lock()
    private var bytes: [UInt8] = []  // under the lock

    var text: String { lock.locked { String(decoding: bytes, as: UTF8.self) } }

    func read(_ descriptor: Int32) {
        var buffer = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count <= 0 { return }
            lock.locked { bytes += buffer.prefix(count) }
        }
    }
}
