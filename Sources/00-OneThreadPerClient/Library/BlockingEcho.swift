import Kernel

extension Socket {
    /// Sends back everything that comes, until the client has sent its last byte. The calling thread does nothing
    /// else meanwhile: it waits in `receive` for bytes and in `send` for room. (I0.1)
    func echoUntilTheEnd(
        through buffer: UnsafeMutableRawBufferPointer, _ ledger: Ledger
    ) throws(SystemError) {
        while let count = try receiveNow(into: buffer), count > 0 {
            var rest = UnsafeRawBufferPointer(rebasing: buffer[..<count])
            // A signal may end a send early, even one that waits.
            while !rest.isEmpty, let sent = try sendNow(rest) {
                rest = UnsafeRawBufferPointer(rebasing: rest[sent...])
            }
            ledger.note { $0.bytesEchoed += count }
        }
    }

    /// Serves one client with blocking calls, whatever comes of it, and closes its socket.
    func serveBlocking(_ limits: Limits, _ ledger: Ledger) {
        var hasFailed = false
        do throws(SystemError) {
            try setBlocking(true)
            let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: limits.receiveSize, alignment: 16)
            defer { buffer.deallocate() }
            try echoUntilTheEnd(through: buffer, ledger)
        } catch {
            hasFailed = true
        }
        close()
        ledger.dismiss(failed: hasFailed)
    }
}
