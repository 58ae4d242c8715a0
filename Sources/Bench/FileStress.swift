import Contexts
import FileTransfer
import FileTransferPitfalls
import Glibc
import Kernel
import Stage

/// Large and many files, both ways, on both drivers (chapter 08).
enum FileStress {
    private static let large: Int64 = 5 << 30
    private static let files = 1_000
    private static let largestSmall = 64 << 10
    private static let connections = 4
    private static let patience = Duration.seconds(120)

    /// A sparse file of 5 GiB, and 1,000 small files, up and down: every sum is the sum of the source.
    static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        for driver in DriverKind.permitted {
            let tree = try Tree()
            defer { tree.remove() }
            holds = try runLarge(driver, tree, terminal) && holds
            holds = try runSmall(driver, tree, terminal) && holds
        }
        return holds
    }

    /// Everything that chapters 05 to 08 add, on one connection at once, half a minute on each driver.
    @Sendable static func composed(_ terminal: Terminal) throws -> Bool {
        var holds = true
        for driver in DriverKind.permitted {
            let report = try Composed.run(driver, for: Stress.time(unlessTold: .seconds(30)))
            terminal.say("\(driver): \(report)")
            for fault in report.faults { terminal.say("  \(fault)") }
            holds = report.faults.isEmpty && holds
        }
        return holds
    }

    private static func options(_ driver: DriverKind, _ folder: String) -> TransferOptions {
        var options = TransferOptions(folder: folder)
        options.streams.port.driver = driver
        options.maximumWaitingFiles = files
        // Both ends are one program, and it may take all the room there is.
        options.share = 1
        return options
    }

    private static func runLarge(_ driver: DriverKind, _ tree: Tree, _ terminal: Terminal) throws -> Bool {
        let path = try tree.makeLarge("here/large", large)
        let wanted = try tree.sum("here/large")
        let server = try FileEnd(options(driver, tree.path + "/there"))
        let client = try FileEnd(options(driver, tree.path + "/back"))
        let connection = try client.connect(to: try server.listen())
        let up = try connection.sendAndWait(path)
        let isUp = up.checksum == wanted && up.bytes == Int(large)
        let sumThere = try tree.sum("there/large")
        let down = try connection.fetch("large")
        let sumBack = try tree.sum("back/large")
        for name in ["here", "there", "back"] { unlink("\(tree.path)/\(name)/large") }
        let isClean = client.stop() && server.stop()
        let rate = { (receipt: TransferReceipt) in
            readable(Double(receipt.bytes) / 1e6 / (receipt.duration / .seconds(1)))
        }
        terminal.say(
            "\(driver): 5 GiB up at \(rate(up)) MB/s and down at \(rate(down)) MB/s; sums "
                + (isUp && sumThere == wanted && sumBack == wanted ? "equal" : "DIFFERENT"))
        return isUp && sumThere == wanted && sumBack == wanted && down.checksum == wanted && isClean
    }

    private static func runSmall(_ driver: DriverKind, _ tree: Tree, _ terminal: Terminal) throws -> Bool {
        var sums: [UInt64] = []
        for index in 0..<files {
            let size = index == 0 ? 0 : index == 1 ? largestSmall : Int.random(in: 0...largestSmall)
            sums.append(try tree.makeSmall("here/\(index)", size))
        }
        let server = try FileEnd(options(driver, tree.path + "/there"))
        let client = try FileEnd(options(driver, tree.path + "/back"))
        let address = try server.listen()
        let lines = try (0..<connections).map { _ in try client.connect(to: address) }
        let start = monotonicNanoseconds()
        let up = Tally()
        for index in 0..<files {
            try lines[index % connections].send(
                file: "\(tree.path)/here/\(index)", up.observer)
        }
        guard up.waits(for: files, within: patience) else { return false }
        let middle = monotonicNanoseconds()
        // Down again, and up under other names at the same time.
        let (down, again) = (Tally(), Tally())
        for index in 0..<files {
            try lines[index % connections].ask(for: "\(index)", down.observer)
            try lines[index % connections].send(
                file: "\(tree.path)/here/\(index)", as: "again-\(index)", again.observer)
        }
        guard down.waits(for: files, within: patience), again.waits(for: files, within: patience) else {
            return false
        }
        let end = monotonicNanoseconds()
        var different = 0
        for index in 0..<files {
            for name in ["there/\(index)", "back/\(index)", "there/again-\(index)"]
            where try tree.sum(name) != sums[index] { different += 1 }
        }
        let isClean = client.stop() && server.stop()
        let failures = up.failures + down.failures + again.failures
        terminal.say(
            "\(driver): 1,000 small files up in \(readable(.nanoseconds(Int64(middle - start)))), 1,000 down and 1,000 up "
                + "in \(readable(.nanoseconds(Int64(end - middle)))); \(failures) failed, \(different) sums differ"
        )
        return failures == 0 && different == 0 && isClean
    }
}

/// Counts transfers that are over.
private final class Tally: Sendable {
    private let done = Counter()
    private let failed = Counter()

    var observer: TransferObserver {
        TransferObserver(finished: { [done, failed] result in
            if case .failure = result { failed.add() }
            done.add()
        })
    }

    var failures: Int { failed.value }

    func waits(for count: Int, within patience: Duration) -> Bool {
        eventually(within: patience) { done.value >= count }
    }
}

/// The folders of the stress, under `/tmp`.
private struct Tree {
    let path = "/tmp/completion-ports-stress-\(getpid())"
    private static let folders = ["here", "there", "back"]

    init() throws {
        mkdir(path, 0o755)
        for folder in Tree.folders where mkdir("\(path)/\(folder)", 0o755) != 0 {
            throw SystemError(errno, attempted: "make \(path)/\(folder)")
        }
    }

    func remove() {
        for folder in Tree.folders {
            unlink("\(path)/\(folder)/large")
            for index in 0..<1_000 {
                unlink("\(path)/\(folder)/\(index)")
                unlink("\(path)/\(folder)/again-\(index)")
            }
            rmdir("\(path)/\(folder)")
        }
        rmdir(path)
    }

    /// A hole with marks in it: at both ends, and at the places where 31 and 32 bits end.
    func makeLarge(_ name: String, _ size: Int64) throws -> String {
        let file = try File("\(path)/\(name)", for: .writing)
        defer { file.close() }
        try file.setSize(size)
        for place in [0, 1 << 31, 1 << 32, size] {
            for offset in [place - 1_000, place] where offset >= 0 && offset < size {
                let mark = (0..<1_000).map { _ in UInt8.random(in: 1...255) }
                guard pwrite(file.descriptor, mark, mark.count, Int(offset)) == mark.count else {
                    throw SystemError(errno, attempted: "write \(name)")
                }
            }
        }
        return "\(path)/\(name)"
    }

    func makeSmall(_ name: String, _ size: Int) throws -> UInt64 {
        let file = try File("\(path)/\(name)", for: .writing)
        defer { file.close() }
        let bytes = (0..<size).map { _ in UInt8.random(in: 0...255) }
        guard write(file.descriptor, bytes, size) == size else {
            throw SystemError(errno, attempted: "write \(name)")
        }
        var sum = Checksum()
        bytes.withUnsafeBytes { sum.add($0) }
        return sum.value
    }

    /// The sum of what really lies there, read with plain calls.
    func sum(_ name: String) throws -> UInt64 {
        let file = try File("\(path)/\(name)")
        defer { file.close() }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var sum = Checksum()
        while true {
            let count = read(file.descriptor, buffer.baseAddress, buffer.count)
            guard count >= 0 else { throw SystemError(errno, attempted: "read \(name)") }
            if count == 0 { return sum.value }
            sum.add(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }
}
