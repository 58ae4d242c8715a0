import Glibc
import Kernel

/// Copies a file with several reads and several writes in flight at once.
public struct FileCopy {
    /// How many reads, and how many writes, are in flight unless told otherwise.
    public static let standardInFlight = 4

    private let source: File
    private let target: File
    private let reads: Int
    private let writes: Int
    private let blockSize: Int

    /// Opens both files. The target is made, or emptied if it exists.
    ///
    /// - Throws: `sameFile` when both paths lead to one file, before anything is touched; `notRegular`; `refused`.
    public init(
        from source: String, to target: String, reads: Int = standardInFlight,
        writes: Int = standardInFlight, blockSize: Int = FileReader.standardBlockSize
    ) throws(FileError) {
        try Blocks.check(inFlight: min(reads, writes) < 1 ? 0 : reads + writes, blockSize: blockSize)
        self.reads = reads
        self.writes = writes
        self.blockSize = blockSize
        self.source = try File.regular(source)
        _ = try Blocks(of: self.source, blockSize: blockSize)
        var (one, other) = (stat(), stat())
        if fstat(self.source.descriptor, &one) == 0, stat(target, &other) == 0, one.st_dev == other.st_dev,
            one.st_ino == other.st_ino
        {
            throw .sameFile(source, target)
        }
        self.target = try FileError.system(File(target, for: .writing))
    }

    /// Copies every byte, and returns how many there were. When this throws, the target holds only a part.
    /// - Parameter progress: called after each write, with the bytes written so far and the bytes there are.
    @discardableResult
    public func run(progress: (Int64, Int64) -> Void = { _, _ in }) throws(FileError) -> Int64 {
        var blocks = try Blocks(of: source, blockSize: blockSize)
        let requests = (0..<reads + writes).map { _ in BlockRequest(blockSize: blockSize) }
        defer { for request in requests { _ = request.wait() } }

        // A request goes round: idle, reading, full, writing, idle.
        var idle = requests
        var full = CircularQueue<BlockRequest>()
        var (reading, writing, copied) = (0, 0, Int64(0))
        while true {
            while writing < writes, let request = full.popFirst() {
                try request.write(to: target)
                writing += 1
            }
            while reading < reads, !idle.isEmpty, let block = blocks.take() {
                try idle.removeLast().read(block, of: source)
                reading += 1
            }
            if reading + writing == 0 { break }
            let request = try BlockRequest.waitForAny(requests)
            if request.kind == .read {
                guard try request.takeRead(of: source, size: blocks.size) else { continue }
                reading -= 1
                full.append(request)
            } else {
                try request.takeWrite(of: target)
                writing -= 1
                copied += Int64(request.data.count)
                idle.append(request)
                progress(copied, blocks.size)
            }
        }
        try blocks.checkEnd(of: source)
        return copied
    }
}
