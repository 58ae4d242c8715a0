import Glibc
import Kernel
import Timeline

/// One of the requests that are in flight on a file: an operation, its event, and its block of memory.
///
/// Each has all three to itself (I1.1). The driver refers to a pending request, so its memory outlives the operation.
final class BlockRequest: Overlapped, @unchecked Sendable {
    let done = Event(.automatic)
    private let memory: UnsafeMutableRawBufferPointer
    /// Which bytes of the file this request is about.
    private(set) var block: Range<Int64> = 0..<0
    /// How many of them have come. Bytes are counted, not blocks (I1.4).
    private var filled = 0

    init(blockSize: Int) {
        memory = .allocate(byteCount: blockSize, alignment: 4096)
        super.init()
        event = done
        // The event is enough, also on a file that belongs to a port.
        suppressesPacket = true
    }

    deinit { memory.deallocate() }

    /// The bytes of the block, as far as they have come.
    var data: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<filled]) }

    func read(_ block: Range<Int64>, of file: File) throws(FileError) {
        self.block = block
        filled = 0
        try readRest(of: file)
    }

    private func readRest(of file: File) throws(FileError) {
        offset = block.lowerBound + Int64(filled)
        let rest = UnsafeMutableRawBufferPointer(rebasing: memory[filled..<block.count])
        try FileError.system(file.read(self, into: rest))
    }

    /// Takes the result of a read. A read may give less than it was asked for: then the rest is posted, and the
    /// answer is `false`.
    func takeRead(of file: File, size: Int64) throws(FileError) -> Bool {
        if let error {
            guard error.code == SystemError.endOfFile else { throw .failed(error) }
            let end = min(try FileError.system(file.size), block.lowerBound + Int64(filled))
            throw .shrank(path: file.path, expected: size, found: end)
        }
        filled += bytes
        if filled == block.count { return true }
        try readRest(of: file)
        return false
    }

    func write(to file: File) throws(FileError) {
        offset = block.lowerBound
        try FileError.system(file.write(self, from: data))
    }

    /// Takes the result of a write.
    func takeWrite(of file: File) throws(FileError) {
        if let error { throw .failed(error) }
        if data.count != bytes { throw .shortWrite(path: file.path) }
    }

    /// Waits until one of several requests has completed, and says which.
    static func waitForAny(_ requests: [BlockRequest]) throws(FileError) -> BlockRequest {
        let events = requests.map(\.done)
        do {
            while true {
                if case .signalled(let index) = try Event.waitForAny(events) { return requests[index] }
            }
        } catch {
            throw .refused(error)
        }
    }
}

/// Cuts a file into blocks, from its start to the end that it had when its size was asked for.
struct Blocks {
    let size: Int64
    private let blockSize: Int64
    private var next: Int64

    static func check(inFlight: Int, blockSize: Int) throws(FileError) {
        precondition((1...FileReader.maximumBlockSize).contains(blockSize), "a block of \(blockSize) bytes")
        if inFlight < 1 { throw .refused(.noEvents) }
        if inFlight > Event.maximumPerWait { throw .refused(.tooManyEvents(inFlight)) }
    }

    init(of file: File, from start: Int64 = 0, blockSize: Int) throws(FileError) {
        var status = stat()
        if fstat(file.descriptor, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            throw .notRegular(path: file.path)
        }
        size = try FileError.system(file.size)
        self.blockSize = Int64(blockSize)
        next = start
    }

    /// The next block. The last one is as long as the file goes: nothing is ever read past the end.
    mutating func take() -> Range<Int64>? {
        guard next < size else { return nil }
        let block = next..<min(size, next + blockSize)
        next = block.upperBound
        return block
    }

    /// Asks for one byte where the file ended at the start. Only the end of the file is a good answer.
    func checkEnd(of file: File) throws(FileError) {
        let request = BlockRequest(blockSize: 1)
        Recorder.label(request.identity, "past the end")
        try request.read(size..<size + 1, of: file)
        _ = request.wait()
        guard let error = request.error else { throw .grew(path: file.path, expected: size) }
        if error.code != SystemError.endOfFile { throw .failed(error) }
    }
}
