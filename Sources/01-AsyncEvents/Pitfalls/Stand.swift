import AsyncEvents
import CKernel
import Glibc
import Kernel
import Stage
import Synchronization

/// A driver of a chosen kind, with a thread that waits in it, for handles that the scenario puts on it.
///
/// Handles without a port share the system's driver, whose kind is settled once for the process. This one lets a
/// scenario or a test choose. An operation on such a handle has to suppress its packet: `Stand.operation()`.
public final class Stand: CompletionTarget, @unchecked Sendable {
    private let driver: Driver
    private let isEnding = Atomic<Bool>(false)
    private let hasEnded = Gate()
    private var thread: Thread?

    /// A driver and its thread.
    public init(_ kind: DriverKind) throws(SystemError) {
        driver = try Driver.make(kind)
        super.init()
        thread = try Thread("stand") { [self] in
            while !isEnding.load(ordering: .acquiring) {
                var completed = CompletionList()
                driver.poll(for: self, until: .never, &completed)
                take(&completed)
            }
            hasEnded.open()
        }
    }

    /// A packet that was not suppressed interests nobody.
    public override func take(_ completed: inout CompletionList) {
        while let packet = completed.popFirst() { packet.takeRetainedValue().wasDequeued() }
    }

    /// Has the handle's operations carried out here.
    public func adopt(_ handle: Handle) throws(SystemError) {
        try handle.associate(with: self, key: 0, driver: driver)
    }

    /// An operation for a handle of this stand, with an event or without.
    public static func operation(_ event: Event? = nil) -> Overlapped {
        let operation = Overlapped()
        operation.event = event
        operation.suppressesPacket = true
        return operation
    }

    /// Ends the thread. To be called when nothing is pending any more. A thread that does not end is left behind, and that
    /// is said.
    public func end() {
        isEnding.store(true, ordering: .releasing)
        driver.wake()
        if hasEnded.pass() {
            thread?.join()
        } else {
            complain("a stand's thread does not come back from its driver")
        }
        driver.retire()
    }

    /// A file of this stand.
    public func file(_ path: String) throws(SystemError) -> File {
        let file = try File(path)
        try adopt(file)
        return file
    }

    /// Two ends of a connection over the loopback: one that only makes plain calls, and one of this stand.
    public func connection() throws(SystemError) -> (plain: Socket, posted: Socket) {
        let pair = try Pair()
        try adopt(pair.server)
        return (pair.client, pair.server)
    }
}

/// A file with known content, gone when nobody refers to it any more.
public final class Scratch: Sendable {
    /// Where it lies.
    public let path: String

    /// Makes an empty file with a name that nobody else has.
    public init() throws(SystemError) {
        let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var name = Array((folder + "/async-events-XXXXXX").utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else { throw SystemError(errno, attempted: "make a file in \(folder)") }
        close(descriptor)
        path = name.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    /// A file of so many bytes, of which no two places look alike.
    public convenience init(size: Int) throws(SystemError) {
        try self.init()
        try put(Scratch.pattern(0..<Int64(size)), at: 0)
    }

    deinit { unlink(path) }

    /// Writes bytes at an offset; what lies between the file's end and the offset is a hole.
    public func put(_ bytes: [UInt8], at offset: Int64) throws(SystemError) {
        let descriptor = ck_open(path, O_WRONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw SystemError(errno, attempted: "open \(path)") }
        defer { close(descriptor) }
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress! + done, $0.count - done, Int(offset) + done)
            }
            if count < 0 { throw SystemError(errno, attempted: "write \(path)") }
            done += count
        }
    }

    /// Cuts the file, or lengthens it with zeros.
    public func setSize(_ size: Int64) throws(SystemError) {
        if truncate(path, off_t(size)) != 0 { throw SystemError(errno, attempted: "set the size of \(path)") }
    }

    /// What a file of `init(size:)` holds in a range.
    public static func pattern(_ range: Range<Int64>) -> [UInt8] {
        range.map { place in
            let mixed = UInt64(bitPattern: place) &* 0x9e37_79b9_7f4a_7c15
            return UInt8(truncatingIfNeeded: mixed >> 56)
        }
    }
}

/// Memory for an operation, kept until nobody refers to it.
public final class Memory: @unchecked Sendable {
    /// The bytes.
    public let bytes: UnsafeMutableRawBufferPointer

    /// So many bytes, all zero.
    public init(_ count: Int) {
        bytes = .allocate(byteCount: count, alignment: 16)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { bytes.deallocate() }

    /// The first bytes as text; zeros are shown as dots.
    public func text(_ count: Int) -> String {
        String(decoding: bytes[..<count].map { $0 == 0 ? UInt8(ascii: ".") : $0 }, as: UTF8.self)
    }
}
