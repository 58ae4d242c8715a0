import Glibc
import Kernel
import Stage
import Testing

@Suite struct StageInterrupt {
    @Test(
        "Ctrl-C, SIGTERM and the terminal's end end a wait instead of the program; the next one ends the program",
        arguments: [SIGINT, SIGTERM, SIGHUP])
    func waiting(signal: Int32) async {
        // The signals are sent to the waiting thread: the others of a testing process do not block them, as those of
        // a program that made its Interrupt first do.
        await #expect(processExitsWith: .exitCode(7)) { [signal] in
            let interrupt = Interrupt()
            guard !interrupt.wait(within: .milliseconds(20)) else { exit(1) }
            let waiter = pthread_self()
            let thread = startThread("sender") { pthread_kill(waiter, signal) }
            guard interrupt.wait(within: .seconds(20)) else { exit(2) }
            thread.join()
            exit(7)
        }
        await #expect(processExitsWith: .failure) { [signal] in
            let interrupt = Interrupt()
            pthread_kill(pthread_self(), signal)
            guard interrupt.wait(within: .seconds(20)) else { exit(0) }
            pthread_kill(pthread_self(), signal)
            sleep(20)
            exit(0)
        }
    }
}

@Suite struct StageInterruptUnderNohup {
    @Test("a SIGHUP that is ignored stays ignored")
    func ignored() async {
        await #expect(processExitsWith: .success) {
            signal(SIGHUP, SIG_IGN)
            let interrupt = Interrupt()
            pthread_kill(pthread_self(), SIGHUP)
            guard !interrupt.wait(within: .milliseconds(50)) else { exit(1) }
            pthread_kill(pthread_self(), SIGTERM)
            exit(interrupt.wait(within: .seconds(20)) ? 0 : 2)
        }
    }
}

@Suite struct StageResources {
    @Test("descriptors and threads are counted, and the limit is raised")
    func counting() async {
        await #expect(processExitsWith: .success) {
            let limit = Resources.raiseDescriptorLimit()
            var system = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &system)
            guard limit == Int(clamping: system.rlim_max), system.rlim_cur == system.rlim_max else { exit(1) }

            Resources.settle()
            let descriptors = Resources.openDescriptors
            let sockets = try (0..<5).map { _ in try Socket.listener(on: .loopback()) }
            guard Resources.openDescriptors == descriptors + 5 else { exit(2) }
            for socket in sockets { socket.close() }
            guard Resources.openDescriptors == descriptors else { exit(3) }

            let threads = Resources.threads
            let gate = Gate()
            let thread = startThread("counted") { gate.pass() }
            guard Resources.threads == threads + 1 else { exit(4) }
            gate.open()
            thread.join()
            guard eventually({ Resources.threads == threads }) else { exit(5) }
            exit(0)
        }
    }

    @Test("clients are scaled down to what the limit allows")
    func scaling() async {
        await #expect(processExitsWith: .success) {
            guard Resources.clientsThatFit(10, descriptorsEach: 2) == 10 else { exit(1) }
            // More than any system permits, with whatever rights.
            let limit = Resources.raiseDescriptorLimit(atLeast: 1 << 40)
            let fits = Resources.clientsThatFit(1 << 39, descriptorsEach: 2)
            exit(fits == (limit - Resources.spareDescriptors) / 2 ? 0 : 2)
        }
    }

    @Test("memory and processor time are those of this process")
    func usage() {
        let size = 64 << 20
        let before = Resources.residentBytes
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4_096)
        memset(memory.baseAddress!, 1, size)
        #expect(Resources.residentBytes > before + size / 2)
        memory.deallocate()

        let thread = Resources.threadTime
        let process = Resources.processTime
        while Resources.threadTime - thread < .milliseconds(20) {}
        #expect(Resources.processTime - process >= .milliseconds(19))
    }

    @Test("a file is written whole, and what cannot be written says why")
    func files() throws {
        let path = "/tmp/stage-test-\(getpid()).txt"
        try writeFile(path, String(repeating: "é", count: 100_000))
        defer { unlink(path) }
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_size == 200_000)
        try writeFile(path, "short")
        #expect(stat(path, &status) == 0 && status.st_size == 5)
        #expect(throws: SystemError(ENOENT, attempted: "write")) { try writeFile("/nowhere/x", "") }
        #expect(throws: SystemError(ENOSPC, attempted: "write")) { try writeFile("/dev/full", "x") }
    }
}
