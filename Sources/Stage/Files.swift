import CKernel
import Glibc
import Kernel

/// Writes a text to a file, replacing what was there.
public func writeFile(_ path: String, _ text: String) throws(SystemError) {
    let descriptor = ck_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw SystemError(errno, attempted: "write \(path)") }
    defer { close(descriptor) }
    let code = writeAll(descriptor, text)
    if code != 0 { throw SystemError(code, attempted: "write \(path)") }
}

/// Writes a text to a descriptor that blocks, with no regard to buffers of the C library.
/// - Returns: the system's error number, or 0.
func writeAll(_ descriptor: Int32, _ text: String) -> Int32 {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count < 0 && errno != EINTR { return errno }
        rest = rest.dropFirst(max(count, 0))
    }
    return 0
}
