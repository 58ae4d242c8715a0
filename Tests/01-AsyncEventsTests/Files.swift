import AsyncEvents
import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage
import Testing
import Timeline

/// The reader and the copy.
@Suite(.serialized)
struct Chapter01AsyncEventsFiles {
    @Test(
        "I1.4: every byte comes once, whatever the size, the blocks and the number in flight",
        arguments: DriverKind.permitted)
    func allShapes(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        for size in [0, 1, 2, 4_095, 4_096, 4_097, 100_000] {
            let scratch = try Scratch(size: size)
            let expected = Scratch.pattern(0..<Int64(size))
            let file = try stand.file(scratch.path)
            for inFlight in [1, 2, 4, 16, 64] {
                for blockSize in [997, 4_096, 1 << 20] {
                    var found = [UInt8](repeating: 0, count: size)
                    var seen = [UInt8](repeating: 0, count: size)
                    let reader = try FileReader(file, inFlight: inFlight, blockSize: blockSize)
                    let count = try reader.read { bytes, offset in
                        let place = Int(offset)..<Int(offset) + bytes.count
                        found.replaceSubrange(place, with: bytes)
                        for index in place { seen[index] += 1 }
                    }
                    #expect(count == size && found == expected && seen.allSatisfy { $0 == 1 })
                }
            }
        }
    }

    @Test("I1.1: so many reads are posted before the first is waited for, and no more")
    func inFlight() async {
        // In a process of its own, since there is one recorder in a process.
        await #expect(processExitsWith: .success) {
            let (source, target) = (try Scratch(size: 64 * 256), try Scratch())
            let file = try File(source.path)
            for count in [1, 4, 16] {
                let reader = try FileReader(file, inFlight: count, blockSize: 256)
                let recording = try recorded { try reader.read { _, _ in } }
                #expect(recording.operationsBeforeTheFirstRepeats == count)
                #expect(recording.mostInHand == count)
                let copy = try FileCopy(
                    from: source.path, to: target.path, reads: count, writes: 4, blockSize: 256)
                #expect(try recorded { try copy.run() }.operationsBeforeTheFirstRepeats == count)
            }
        }
    }

    @Test(
        "a file that shrinks or grows while it is read ends with what happened",
        arguments: DriverKind.permitted)
    func changing(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        for inFlight in [1, 4] {
            let scratch = try Scratch(size: 100 * 256)
            let file = try stand.file(scratch.path)
            let shrunk = failure(file, inFlight) { try? scratch.setSize(10 * 256 + 3) }
            #expect(shrunk == .shrank(path: scratch.path, expected: 25_600, found: 2_563))
            try scratch.put(Scratch.pattern(0..<25_600), at: 0)
            let grown = failure(file, inFlight) { try? scratch.put([1], at: 25_600) }
            #expect(grown == .grew(path: scratch.path, expected: 25_600))
            // Only the last block is affected: what it lacks must not be counted.
            let last = failure(file, inFlight) { try? scratch.setSize(25_599) }
            #expect(last == .shrank(path: scratch.path, expected: 25_601, found: 25_599))
            try scratch.put(Scratch.pattern(25_599..<25_600), at: 25_599)
            let within = failure(file, inFlight) { try? scratch.setSize(25_590) }
            #expect(within == .shrank(path: scratch.path, expected: 25_600, found: 25_590))
            try scratch.put([1, 2], at: 25_599)
            let emptied = failure(file, inFlight) { try? scratch.setSize(0) }
            #expect(emptied == .shrank(path: scratch.path, expected: 25_601, found: 0))
        }
    }

    private func failure(_ file: File, _ inFlight: Int, change: () -> Void) -> FileError? {
        var isChanged = false
        do throws(FileError) {
            try FileReader(file, inFlight: inFlight, blockSize: 256).read { _, _ in
                if !isChanged { change() }
                isChanged = true
            }
            return nil
        } catch {
            return error
        }
    }

    @Test("what is no regular file, or says nothing of its size, is said")
    func notRegular() throws {
        let device = try File("/dev/zero")
        #expect(throws: FileError.notRegular(path: "/dev/zero")) { try FileReader(device).read { _, _ in } }
        let madeUp = try File("/proc/self/status")
        #expect(throws: FileError.grew(path: "/proc/self/status", expected: 0)) {
            try FileReader(madeUp).read { _, _ in }
        }
        let closed = try File("/dev/null")
        closed.close()
        #expect(throws: FileError.self) { try FileReader(closed).read { _, _ in } }
    }

    @Test("a copy is byte for byte its source", arguments: DriverKind.permitted.map(\.rawValue))
    func copies(kind: String) async {
        await #expect(processExitsWith: .success) { [kind] in
            setenv("PORT_DRIVER", kind, 1)
            for size in [0, 1, 255, 256, 257, 3 * 256 + 1, 50_000] {
                let source = try Scratch(size: size)
                // The target is longer before.
                let target = try Scratch(size: 60_000)
                var steps: [Int64] = []
                let copy = try FileCopy(from: source.path, to: target.path, blockSize: 256)
                let count = try copy.run { done, total in
                    steps.append(done)
                    if total != Int64(size) { Issue.record("of \(total) bytes") }
                }
                #expect(count == size)
                #expect(steps == steps.sorted() && (size == 0 || steps.last == Int64(size)))
                #expect(try contents(target.path) == Scratch.pattern(0..<Int64(size)))
            }
            #expect(Driver.system.kind.rawValue == kind)
        }
    }

    @Test("several blocks beyond 4 GiB are read at their places", arguments: DriverKind.permitted)
    func farOut(kind: DriverKind) throws {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try Scratch()
        let base: Int64 = 5 << 30
        try scratch.put(Scratch.pattern(base..<base + 10_000), at: base)
        var found: [Int64: [UInt8]] = [:]
        let reader = try FileReader(stand.file(scratch.path), blockSize: 1_000)
        let count = try reader.read(from: base) { bytes, offset in found[offset] = Array(bytes) }
        #expect(count == 10_000 && found.count == 10)
        for (offset, bytes) in found { #expect(bytes == Scratch.pattern(offset..<offset + 1_000)) }
    }

    @Test("a file is not copied onto itself, by whatever name, and is still whole")
    func ontoItself() throws {
        let scratch = try Scratch(size: 1_000)
        let (hard, soft) = (scratch.path + ".hard", scratch.path + ".soft")
        #expect(link(scratch.path, hard) == 0 && symlink(scratch.path, soft) == 0)
        defer {
            unlink(hard)
            unlink(soft)
        }
        for name in [scratch.path, hard, soft] {
            #expect(throws: FileError.sameFile(scratch.path, name)) {
                try FileCopy(from: scratch.path, to: name)
            }
        }
        #expect(try contents(scratch.path) == Scratch.pattern(0..<1_000))
    }

    @Test("a source that shrinks while it is copied ends with what happened")
    func shrinkingSource() throws {
        let (source, target) = (try Scratch(size: 200 * 256), try Scratch())
        let copy = try FileCopy(from: source.path, to: target.path, blockSize: 256)
        #expect(throws: FileError.shrank(path: source.path, expected: 51_200, found: 100)) {
            try copy.run { _, _ in try? source.setSize(100) }
        }
    }

    @Test("a target that takes no more ends with the system's reason")
    func fullTarget() async {
        await #expect(processExitsWith: .success) {
            // No file of this process may be longer; a write beyond is an error rather than a signal.
            let source = try Scratch(size: 100_000)
            let target = try Scratch()
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 50_000, rlim_max: 50_000)
            #expect(setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)
            let copy = try FileCopy(from: source.path, to: target.path, blockSize: 1_000)
            #expect(throws: FileError.failed(SystemError(EFBIG, attempted: ""))) { try copy.run() }
        }
    }

    @Test("too many in flight, a folder, and a file that is not there are errors of one line")
    func refusals() throws {
        let scratch = try Scratch(size: 10)
        #expect(throws: FileError.refused(.tooManyEvents(65))) {
            try FileCopy(from: scratch.path, to: scratch.path + ".copy", reads: 60, writes: 5)
        }
        #expect(throws: FileError.refused(.noEvents)) {
            try FileCopy(from: scratch.path, to: scratch.path + ".copy", reads: 4, writes: 0)
        }
        #expect(access(scratch.path + ".copy", F_OK) != 0, "nothing was made")
        #expect(throws: FileError.failed(SystemError(ENOENT, attempted: ""))) {
            try FileCopy(from: scratch.path + ".nowhere", to: scratch.path)
        }
        #expect(throws: FileError.failed(SystemError(EISDIR, attempted: ""))) {
            try FileCopy(from: "/tmp", to: scratch.path)
        }
        let errors: [FileError] = [
            .notRegular(path: "x"), .shrank(path: "x", expected: 2, found: 1), .grew(path: "x", expected: 0),
            .grew(path: "x", expected: 1), .shortWrite(path: "x"), .sameFile("x", "y"),
        ]
        for error in errors { #expect(!"\(error)".contains("\n") && "\(error)".contains("x")) }
    }

    @Test("reading and copying leave no descriptor and no pending request behind")
    func nothingLeft() async {
        await #expect(processExitsWith: .success) {
            let (source, target) = (try Scratch(size: 100_000), try Scratch())
            func round() throws {
                try FileReader(File(source.path), blockSize: 1_000).read { _, _ in }
                try FileCopy(from: source.path, to: target.path, blockSize: 1_000).run()
                _ = try? FileReader(File(source.path), blockSize: 1_000).read { _, _ in
                    try? source.setSize(0)
                }
                try source.put(Scratch.pattern(0..<100_000), at: 0)
            }
            // The first rounds make the driver, its thread and its helpers.
            for _ in 0..<5 { try round() }
            Resources.settle()
            let before = (Resources.openDescriptors, Resources.threads)
            for _ in 0..<20 { try round() }
            #expect(eventually { Resources.openDescriptors == before.0 })
            // A helper may have started late; there are four of them at most.
            #expect(Resources.threads <= before.1 + 4)
        }
    }
}

/// What a file holds, read plainly.
private func contents(_ path: String) throws -> [UInt8] {
    let file = try File(path)
    let size = Int(try file.size)
    var bytes = [UInt8](repeating: 0, count: size + 1)
    let count = pread(file.descriptor, &bytes, size + 1, 0)
    return Array(bytes[..<count])
}

/// What the recorder saw of the calling thread's work.
private func recorded(_ body: () throws -> Void) throws -> Recording {
    try #require(Recorder.start())
    try body()
    return Recorder.stop()
}

extension Recording {
    /// How many different operations were posted before one of them was posted again.
    fileprivate var operationsBeforeTheFirstRepeats: Int {
        var seen: Set<UInt> = []
        for record in records where record.what == .moment(.posted) {
            if !seen.insert(record.operation).inserted { break }
        }
        return seen.count
    }

    /// How many operations were posted and not handled, at most.
    fileprivate var mostInHand: Int {
        var (count, most) = (0, 0)
        for record in records {
            if record.what == .moment(.posted) { count += 1 }
            if record.what == .moment(.dequeued) { count -= 1 }
            most = max(most, count)
        }
        return most
    }
}
