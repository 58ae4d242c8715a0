import AsyncEvents
import AsyncEventsPitfalls
import Glibc
import Kernel
import Stage
import Timeline

/// How long the generated file is: a few blocks, and then some bytes that fill no block.
let generatedSize = 32 << 20 | 12_345

/// Everything that the chapter promises, in one go.
func tellStory() throws {
    let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    let path = "\(folder)/01-async-events-\(getpid())"
    defer { unlink(path) }
    try generate(path)
    try measure(path, named: "a generated file")
    try showLanes(path)
    try showPitfalls()
}

/// Reads a file in several ways, and compares what came and how long it took.
func measure(_ path: String, named name: String? = nil) throws {
    let file = try File.regular(path)
    let size = try file.size
    terminal.heading("Reading \(name ?? path): \(megabytes(size)) MB")
    terminal.say("driver: \(Driver.system.kind). Cold: the system's copy in memory was dropped before.")
    terminal.say("On request: cold, and the system reads nothing ahead, as in random access.")
    terminal.say()
    var rows: [[String]] = []
    var sums: Set<UInt64> = []
    var counts: Set<Int64> = []
    for inFlight in [0, 1, 4, 16] {
        var row = [inFlight == 0 ? "plain reads, one by one" : "\(inFlight) in flight"]
        for (isCold, advice) in [
            (true, POSIX_FADV_NORMAL), (true, POSIX_FADV_RANDOM), (false, POSIX_FADV_NORMAL),
        ] {
            if isCold { _ = posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED) }
            _ = posix_fadvise(file.descriptor, 0, 0, advice)
            let start = monotonicNanoseconds()
            let (count, sum) = inFlight == 0 ? try readPlainly(file) : try read(file, inFlight)
            let elapsed = monotonicNanoseconds() - start
            row.append(milliseconds(elapsed))
            row.append(rate(count, elapsed))
            sums.insert(sum)
            counts.insert(count)
        }
        rows.append(row)
    }
    terminal.table(["", "cold ms", "MB/s", "on request ms", "MB/s", "warm ms", "MB/s"], rows)
    terminal.say()
    terminal.claim("every way gave \(size) bytes", holds: counts == [size])
    let sum = sums.map { String($0, radix: 16) }.joined(separator: ", ")
    terminal.claim("every way gave the same bytes; their checksum is \(sum)", holds: sums.count == 1)
}

private func read(_ file: File, _ inFlight: Int) throws -> (Int64, UInt64) {
    var sum: UInt64 = 0
    let count = try FileReader(file, inFlight: inFlight).read { bytes, offset in
        sum &+= checksum(bytes, at: offset)
    }
    return (count, sum)
}

/// The loop that everybody knows: one read, and then the next.
private func readPlainly(_ file: File) throws -> (Int64, UInt64) {
    let size = FileReader.standardBlockSize
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
    defer { block.deallocate() }
    var (position, sum) = (Int64(0), UInt64(0))
    while true {
        let count = pread(file.descriptor, block.baseAddress, block.count, off_t(position))
        if count < 0 { throw SystemError(errno, attempted: "read \(file.path)") }
        if count == 0 { return (position, sum) }
        sum &+= checksum(UnsafeRawBufferPointer(rebasing: block[..<count]), at: position)
        position += Int64(count)
    }
}

/// Adds up words, each mixed with its place: the order of the blocks does not matter, the place of every byte does.
private func checksum(_ bytes: UnsafeRawBufferPointer, at offset: Int64) -> UInt64 {
    guard let start = bytes.baseAddress else { return 0 }
    var sum: UInt64 = 0
    var place = UInt64(bitPattern: offset)
    let whole = bytes.count / 8
    // Blocks are aligned to pages, and this reads whole words inside the block only.
    let words = start.assumingMemoryBound(to: UInt64.self)
    var index = 0
    while index < whole {
        sum &+= (words[index] ^ place) &* 0x9e37_79b9_7f4a_7c15
        place &+= 8
        index += 1
    }
    for byte in bytes[(whole * 8)...] {
        sum &+= (UInt64(byte) ^ place) &* 0x9e37_79b9_7f4a_7c15
        place &+= 1
    }
    return sum
}

/// Writes a file of which no two blocks look alike.
private func generate(_ path: String) throws {
    let file = try File(path, for: .creating)
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
    defer { block.deallocate() }
    let words = block.bindMemory(to: UInt64.self)
    var value: UInt64 = 88_172_645_463_325_252
    for index in words.indices {
        value ^= value << 13
        value ^= value >> 7
        value ^= value << 17
        words[index] = value
    }
    let write = Overlapped()
    while write.offset < generatedSize {
        words[0] = UInt64(write.offset)
        let part = UnsafeRawBufferPointer(
            rebasing: block[..<min(block.count, generatedSize - Int(write.offset))])
        try file.write(write, from: part)
        write.offset += Int64(try write.result(waiting: true))
    }
    // What is not on the disk yet cannot be dropped from memory.
    try file.flush()
}

/// Four reads in flight on the file's last blocks, twelve at most, drawn: each row is a request, and `main` handles
/// whichever has completed.
func showLanes(_ path: String) throws {
    terminal.heading("Four reads in flight, drawn")
    let file = try File.regular(path)
    let blockSize = Int64(FileReader.standardBlockSize)
    let size = try file.size
    let start = max(0, size - 12 * blockSize)
    let expected = (size - start + blockSize - 1) / blockSize
    _ = posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
    let reader = try FileReader(file)
    Recorder.nameThread("main")
    Recorder.start()
    var blocks: Int64 = 0
    try reader.read(from: start) { bytes, offset in
        _ = checksum(bytes, at: offset)
        blocks += 1
    }
    let recording = Recorder.stop()
    terminal.draw(recording)
    terminal.claim(
        "\(expected) blocks came, in the order in which they completed", holds: blocks == expected)
    try options.save(
        recording, title: "Four reads in flight on one file",
        description: "While one block is being handled, the three other requests are pending.")
}

/// Every pitfall, broken and fixed, a line each.
private func showPitfalls() throws {
    terminal.heading("What goes wrong, and what does not")
    var rows: [[String]] = []
    var broken = 0
    var fixed = 0
    for pitfall in Chapter01.pitfalls {
        let (before, after) = (try pitfall.broken(options.driver), try pitfall.fixed(options.driver))
        if before.happened { broken += 1 }
        if !after.happened { fixed += 1 }
        rows.append([
            pitfall.slug, before.happened ? "goes wrong" : "does not",
            after.happened ? "goes wrong" : "holds",
        ])
    }
    terminal.table(["--pitfall", "broken", "fixed"], rows)
    terminal.say()
    terminal.claim("\(broken) of \(rows.count) go wrong when broken", holds: broken == rows.count)
    terminal.claim("\(fixed) of \(rows.count) hold when fixed", holds: fixed == rows.count)
}
