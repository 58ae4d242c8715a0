import FileTransfer
import FileTransferPitfalls
import Glibc
import Kernel
import Stage
import Testing

@Suite("Chapter 08: files that arrive whole", .serialized)
struct Chapter08FileTransferExchange {
    @Test("files of every awkward size arrive whole, and are fetched whole", arguments: DriverKind.permitted)
    func sizes(driver: DriverKind) async throws {
        try await onAThread {
            let stand = try Stand(driver)
            let client = try stand.client()
            let back = try ScratchFolder()
            for size in [0, 1, 8_191, 8_192, 16_383, 16_384, 16_385, 100_000] {
                let name = "file-\(size)"
                let receipt = try client.connection.sendAndWait(
                    try stand.home.make(name, bytes: size, seed: size))
                #expect(receipt.bytes == size)
                #expect(stand.folder.contents(name) == ScratchFolder.pattern(size, seed: size))
                let fetched = try client.connection.fetch(name, into: back.path)
                #expect(fetched.checksum == receipt.checksum)
                #expect(back.contents(name) == ScratchFolder.pattern(size, seed: size))
            }
            #expect(client.stop())
            #expect(stand.server.stop())
            #expect(stand.folder.names.count == 8)
        }
    }
}
