import Glibc
import Kernel
import Timeline

extension File {
    /// Opens a file that has a size and offsets. Looks first: the other end of a pipe may never come, and opening one
    /// waits for it.
    /// - Throws: `notRegular` for a pipe, a terminal or a device; `failed`.
    public static func regular(_ path: String) throws(FileError) -> File {
        var status = stat()
        if stat(path, &status) == 0, ![S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT) {
            throw .notRegular(path: path)
        }
        return try FileError.system(File(path))
    }
}

/// Reads a file with several requests in flight: while one block is being used, the next ones are on their way.
public struct FileReader {
    /// How many requests are in flight unless told otherwise.
    public static let standardInFlight = 4
    /// How many bytes each of them asks for unless told otherwise.
    public static let standardBlockSize = 256 * 1024
    /// The largest block.
    public static let maximumBlockSize = 64 * 1024 * 1024

    private let file: File
    private let inFlight: Int
    private let blockSize: Int

    /// A reader with so many requests in flight, each for `blockSize` bytes: 1 to `maximumBlockSize`.
    /// - Throws: `refused` when there are more of them than one wait covers.
    public init(
        _ file: File, inFlight: Int = standardInFlight, blockSize: Int = standardBlockSize
    ) throws(FileError) {
        try Blocks.check(inFlight: inFlight, blockSize: blockSize)
        self.file = file
        self.inFlight = inFlight
        self.blockSize = blockSize
    }

    /// Reads from `start` to the end. Blocks come in the order in which they complete, each with its offset, and
    /// together they are every byte exactly once.
    ///
    /// - Parameter consume: gets the bytes, which are valid during the call only, and where in the file they begin.
    /// - Returns: how many bytes there were.
    /// - Throws: `shrank` or `grew` when the file did not stay as it was. Nothing is in flight then, either.
    @discardableResult
    public func read(
        from start: Int64 = 0, _ consume: (UnsafeRawBufferPointer, Int64) -> Void
    ) throws(FileError) -> Int64 {
        var blocks = try Blocks(of: file, from: start, blockSize: blockSize)
        let requests = (0..<inFlight).map { _ in BlockRequest(blockSize: blockSize) }
        defer { for request in requests { _ = request.wait() } }

        var pending = 0
        for (index, request) in requests.enumerated() {
            guard let block = blocks.take() else { break }
            Recorder.label(request.identity, "read \(index + 1)")
            try request.read(block, of: file)
            pending += 1
        }
        var total: Int64 = 0
        while pending > 0 {
            let request = try BlockRequest.waitForAny(requests)
            guard try request.takeRead(of: file, size: blocks.size) else { continue }
            Recorder.mark(.dequeued, request.identity)
            consume(request.data, request.block.lowerBound)
            Recorder.mark(.handled, request.identity)
            total += Int64(request.data.count)
            if let block = blocks.take() {
                try request.read(block, of: file)
            } else {
                pending -= 1
            }
        }
        try blocks.checkEnd(of: file)
        return total
    }
}
