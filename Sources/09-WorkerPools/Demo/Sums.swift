import FileTransfer
import Framing
import Glibc
import Kernel
import Stage
import WorkerPools

/// Chapter 08's sums: by the port's workers, and as jobs.
func showSums(_ options: Stage.Options, on terminal: Terminal) throws {
    let size = 48 << 20
    terminal.heading("A file of 48 MiB, with its sums where the bytes are, and as jobs")
    let folder = "/tmp/worker-pools-\(getpid())"
    guard mkdir(folder, 0o700) == 0 else { throw SystemError(errno, attempted: "make \(folder)") }
    defer { rmdir(folder) }
    let path = folder + "/file"
    let file = try File(path, for: .writing)
    defer { unlink(path) }
    let bytes = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 0x9e37_79b1 >> 13) }
    for part in 0..<size >> 20 { pwrite(file.descriptor, bytes, bytes.count, part << 20) }
    file.close()
    var rows: [[String]] = []
    var isRight = true
    for (name, workers) in [("the port's worker", 0), ("1 logical worker", 1), ("2 logical workers", 2)] {
        let pool = try WorkerPool(workers: workers)
        let receipt = try transfer(path, to: folder, pool: workers == 0 ? nil : pool, options.driver)
        let counters = pool.counters
        try pool.stop()
        isRight =
            isRight && receipt.bytes == size && counters.done == counters.added
            && (workers == 0) == (counters.added == 0)
        rows.append([
            name, readable(Double(size) / 1e6 / (receipt.duration / .seconds(1))), readable(counters.added),
        ])
    }
    terminal.table(["who sums up", "MB/s", "jobs"], rows)
    terminal.claim("the file is whole each time, and its sums were jobs", holds: isRight)
}

/// One file, over a connection of its own; both sides give their sums to the pool.
private func transfer(
    _ path: String, to folder: String, pool: WorkerPool?, _ driver: DriverKind
) throws -> TransferReceipt {
    func side(_ folder: String?) throws -> (FramedService<LengthPrefixed>, FileTransfer) {
        var choices = TransferOptions(folder: folder)
        choices.replaces = true
        choices.streams.workers = 1
        choices.streams.port.driver = driver
        if let pool {
            choices.sums = { work in
                // Run once, in any case: where there is no room, here and now.
                do throws(JobError) { try pool.add(work) } catch { work() }
            }
        }
        let files = try FileService(choices)
        let service = try FramedService(TransferMessage.codec, options: choices.streams, round: files.round)
        return (service, FileTransfer(files))
    }
    let pair = try Pair()
    let (server, receiver) = try side(folder)
    let (client, sender) = try side(nil)
    defer {
        client.stop()
        server.stop()
        unlink(folder + "/arrived")
    }
    try server.adopt(pair.server, handler: receiver)
    try client.adopt(pair.client, handler: sender)
    return try sender.sendAndWait(path, as: "arrived")
}
