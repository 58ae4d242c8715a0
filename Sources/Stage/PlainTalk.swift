import CKernel
import Glibc
import Kernel

/// What a scenario says and hears at the end of a connection that no port looks after: plain calls, each with a bound.
extension Socket {
    /// Sends all of it, and waits where the system takes none.
    public func say(_ bytes: [UInt8], within patience: Duration = Gate.patience) throws(SystemError) {
        let deadline = Deadline.after(patience)
        var sent = 0
        while sent < bytes.count {
            let result = bytes.withUnsafeBytes { memory in
                Result { () throws(SystemError) in
                    try sendNow(UnsafeRawBufferPointer(rebasing: memory[sent...]))
                }
            }
            if let more = try result.get() {
                sent += more
            } else if !waits(for: POLLOUT, until: deadline) {
                throw SystemError(ETIMEDOUT, attempted: "say \(bytes.count) bytes")
            }
        }
    }

    /// The same for a text.
    public func say(_ text: String) throws(SystemError) { try say(Array(text.utf8)) }

    /// Takes up to `count` bytes: fewer only at the end of the stream, or when the time is over.
    public func hearBytes(
        _ count: Int, within patience: Duration = Gate.patience
    ) throws(SystemError) -> [UInt8] {
        let deadline = Deadline.after(patience)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, count), alignment: 1)
        defer { memory.deallocate() }
        var heard = 0
        while heard < count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: memory[heard..<count])
            if let more = try receiveNow(into: rest) {
                if more == 0 { break }
                heard += more
            } else if !waits(for: POLLIN, until: deadline) {
                break
            }
        }
        return Array(memory[..<heard])
    }

    /// The same as a text.
    public func hear(_ count: Int, within patience: Duration = Gate.patience) throws(SystemError) -> String {
        String(decoding: try hearBytes(count, within: patience), as: UTF8.self)
    }

    /// Says a word; whether it came back in time.
    public func isAnswered(_ word: String = "hello", within patience: Duration = Gate.patience) -> Bool {
        guard (try? say(word)) != nil else { return false }
        return (try? hear(word.utf8.count, within: patience)) == word
    }

    /// Whether the other side ends the connection in time, by whatever way; what it sent before is thrown away.
    public func isEnded(within patience: Duration = Gate.patience) -> Bool {
        let deadline = Deadline.after(patience)
        while true {
            do throws(SystemError) {
                guard let more = try takeAny() else {
                    if waits(for: POLLIN, until: deadline) { continue }
                    return false
                }
                if more == 0 { return true }
            } catch {
                return true
            }
        }
    }

    private func takeAny() throws(SystemError) -> Int? {
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 1)
        defer { scratch.deallocate() }
        return try receiveNow(into: scratch)
    }

    /// Bytes that have arrived and have not been read.
    public var unread: Int {
        var count: Int32 = 0
        _ = ck_ioctl_int(descriptor, UInt(FIONREAD), &count)
        return Int(count)
    }

    /// Ends the connection with a reset.
    public func abort() throws(SystemError) {
        try setAbortiveClose()
        close()
    }

    /// From now on nothing that is sent to this socket reaches it, and nothing that it sends arrives: as if its machine had
    /// lost its cable. It stays open.
    ///
    /// It begins to sign what it sends, and takes only what is signed (RFC 2385). The other side knows nothing of a key.
    /// What does not fit is dropped by either system without a word, and no right is needed for that.
    public func fallSilent() throws(SystemError) {
        var key = tcp_md5sig()
        key.tcpm_keylen = 1
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let descriptor = descriptor
        let result = withUnsafeMutablePointer(to: &key.tcpm_addr) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) }
        }
        guard result == 0,
            setsockopt(
                descriptor, Int32(IPPROTO_TCP), TCP_MD5SIG, &key, socklen_t(MemoryLayout<tcp_md5sig>.size))
                == 0
        else { throw SystemError(errno, attempted: "sign what a connection sends") }
    }

    /// Waits until the socket can be used. False when it could not in time.
    public func waits(for readiness: Int32, until deadline: Deadline) -> Bool {
        var wish = pollfd(fd: descriptor, events: Int16(readiness), revents: 0)
        while true {
            let milliseconds = Int32(clamping: deadline.remaining / 1_000_000 + (deadline.hasPassed ? 0 : 1))
            if poll(&wish, 1, milliseconds) > 0 { return true }
            if deadline.hasPassed { return false }
        }
    }
}
