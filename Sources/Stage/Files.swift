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
