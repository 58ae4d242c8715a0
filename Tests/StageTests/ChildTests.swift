import Glibc
import Kernel
import Stage
import Testing

@Suite(.serialized) struct StageChild {
    private func shell(_ script: String, within limit: Duration = .seconds(20)) throws -> Child.Ending {
        try Child.run("/bin/sh", ["-c", script], within: limit)
    }

    @Test("output, errors and exit status come back")
    func simple() throws {
        let ending = try shell("echo out; echo err >&2; exit 3")
        #expect(ending.output == "out\n" && ending.errors == "err\n")
        #expect(ending.status == 3 && !ending.timedOut)
    }

    @Test("arguments and variables arrive as they are, and there is no input")
    func arguments() throws {
        let ending = try Child.run(
            "/bin/sh", ["-c", "printf '%s|' \"$1\" \"$STAGE_TEST\"; cat", "sh", "a b'c"],
            environment: ["STAGE_TEST": "x y", "HOME": "/nowhere"], within: .seconds(20))
        #expect(ending.output == "a b'c|x y|")
    }

    @Test("much output is taken as it comes, and what is beyond the limit is thrown away")
    func large() throws {
        let ending = try shell("head -c 6000000 /dev/zero | tr '\\0' x; echo end >&2")
        #expect(ending.output.utf8.count == Child.maximumOutput)
        #expect(ending.errors == "end\n" && ending.status == 0)
    }

    @Test("a child that does not end in time is killed")
    func timeOut() throws {
        let before = Deadline.now
        let ending = try shell("echo begun; exec sleep 60", within: .milliseconds(300))
        #expect(ending.timedOut && ending.status == 128 + SIGKILL && ending.output == "begun\n")
        #expect(Deadline.now.nanoseconds - before.nanoseconds < 20_000_000_000)
    }

    @Test("a child whose own child holds its output open is not waited for longer than itself")
    func grandchild() throws {
        let before = Deadline.now
        let ending = try shell("sleep 30 & echo done")
        #expect(ending.output == "done\n" && ending.status == 0 && !ending.timedOut)
        #expect(Deadline.now.nanoseconds - before.nanoseconds < 20_000_000_000)
    }

    @Test("a line can be waited for, and a signal sent")
    func serving() throws {
        let child = try Child(
            "/bin/sh",
            [
                "-c",
                "trap 'echo bye; exit 0' TERM; echo noise; echo listening on 1; while :; do sleep 0.05; done",
            ])
        #expect(child.line(startingWith: "listening", within: .seconds(20)) == "listening on 1")
        #expect(child.line(startingWith: "never", within: .milliseconds(50)) == nil)
        child.send(signal: SIGTERM)
        let ending = child.wait(within: .seconds(20))
        #expect(ending.status == 0 && ending.output.hasSuffix("bye\n"))
    }

    @Test("the words of a child that ends by an error are found above what the runtime prints below them")
    func lastWords() throws {
        let ending = try shell(
            """
            echo 'main.swift:7: Fatal error: Error raised at top level: open x: No such file' >&2
            echo '*** Signal 4: Backtracing' >&2; echo 'Backtrace took 0.1s' >&2; kill -ILL $$
            """)
        #expect(
            ending.lastWords == "main.swift:7: Fatal error: Error raised at top level: open x: No such file")
        #expect(
            ending.words
                == "was ended by signal 4 (Illegal instruction): main.swift:7: Fatal error: Error raised at top level: "
                + "open x: No such file")
        #expect(try shell("echo one >&2; echo two >&2; exit 3").words == "ended with status 3: two")
        #expect(try shell("exit 0").words == "ended with status 0")
        #expect(try shell("exec sleep 60", within: .milliseconds(50)).words == "did not end in time")
    }

    @Test("what cannot be started says why")
    func missing() {
        let error = #expect(throws: SystemError.self) {
            try Child.run("/nowhere/program", [], within: .seconds(1))
        }
        #expect(error?.description == "start /nowhere/program: No such file or directory")
    }

    @Test(
        "a child begins without this process's blocked and ignored signals, and leaves no descriptor behind")
    func clean() async {
        await #expect(processExitsWith: .success) {
            signal(SIGPIPE, SIG_IGN)
            _ = Interrupt()
            Resources.settle()
            let before = Resources.openDescriptors
            let ending = try Child.run("/bin/sh", ["-c", "kill -PIPE $$; exit 5"], within: .seconds(20))
            let other = try Child.run("/bin/sh", ["-c", "kill -TERM $$; exit 5"], within: .seconds(20))
            do { _ = try Child("/bin/sleep", ["60"]) }
            let isClean = Resources.openDescriptors == before
            exit(ending.status == 128 + SIGPIPE && other.status == 128 + SIGTERM && isClean ? 0 : 1)
        }
    }
}
