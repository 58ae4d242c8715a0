import CompletionPorts
import Glibc
import Kernel

/// Reading a file: one plain read after the other, beside several in flight through the port.
enum FileReads {
    static let size = 256 << 20
    static let block = 64 << 10

    static func measure(into figures: inout Figures) throws {
        let path = "/tmp/completion-ports-bench-\(getpid())"
        try make(path)
        defer { unlink(path) }
        figures.add("plain reads", "MB/s", try rate { try plain(path) })
        for driver in DriverKind.permitted {
            for depth in [1, 4, 16] {
                figures.add(
                    "\(depth) in flight, \(driver)", "MB/s", try rate { try inFlight(path, depth, driver) })
            }
        }
    }

    static func compare(_ figures: inout Figures) {
        for driver in DriverKind.permitted { figures.compare("4 in flight, \(driver)", to: "plain reads") }
    }

    private static func rate(_ body: () throws -> UInt64) throws -> Double {
        let start = monotonicNanoseconds()
        let sum = try body()
        let elapsed = Double(monotonicNanoseconds() - start)
        guard sum == UInt64(size / 8) else { fatalError("the file was not read as it was written") }
        return Double(size) * 1_000 / elapsed
    }

    /// A file in which every eighth byte is 1, so that whoever reads it has to touch it and can tell.
    private static func make(_ path: String) throws {
        let file = try File(path, for: .creating)
        defer { file.close() }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { bytes.deallocate() }
        for index in stride(from: 0, to: bytes.count, by: 8) {
            bytes.storeBytes(of: 1, toByteOffset: index, as: UInt64.self)
        }
        let descriptor = file.descriptor
        for _ in 0..<size >> 20 {
            guard write(descriptor, bytes.baseAddress, bytes.count) == bytes.count else {
                throw SystemError(errno, attempted: "write \(path)")
            }
        }
    }

    private static func sum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var sum: UInt64 = 0
        for index in stride(from: 0, to: bytes.count & ~7, by: 8) {
            sum &+= bytes.load(fromByteOffset: index, as: UInt64.self)
        }
        return sum
    }

    private static func plain(_ path: String) throws -> UInt64 {
        let file = try File(path)
        let descriptor = file.descriptor
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: block, alignment: 4096)
        defer { buffer.deallocate() }
        var total: UInt64 = 0
        var position = 0
        while true {
            let count = pread(descriptor, buffer.baseAddress, block, position)
            guard count > 0 else { return total }
            total &+= sum(.init(rebasing: buffer[..<count]))
            position += count
        }
    }

    private final class Block: Overlapped, @unchecked Sendable {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: FileReads.block, alignment: 4096)
        deinit { memory.deallocate() }
    }

    private static func inFlight(_ path: String, _ depth: Int, _ driver: DriverKind) throws -> UInt64 {
        let file = try File(path)
        var options = CompletionPort.Options()
        options.driver = driver
        let port = try CompletionPort(concurrency: 1, options: options)
        try port.associate(file, key: 0)
        var next: Int64 = 0
        var pending = 0
        var total: UInt64 = 0
        let post = { (block: Block) throws in
            guard next < Int64(size) else { return }
            block.offset = next
            next += Int64(FileReads.block)
            try file.read(block, into: block.memory)
            pending += 1
        }
        for _ in 0..<depth { try post(Block()) }
        while pending > 0 {
            guard case .completed(let packet) = port.dequeue(), let block = packet.operation as? Block else {
                throw SystemError(EIO, attempted: "read \(path)")
            }
            pending -= 1
            total &+= sum(.init(rebasing: block.memory[..<packet.bytes]))
            try post(block)
        }
        port.close()
        return total
    }
}
