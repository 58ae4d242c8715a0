import CKernel
import Glibc

/// Runs the body of a test that has a process of its own. What it throws is said where a reader of the test sees it:
/// otherwise the process would end with a signal, and the words would be lost.
public func inChild(file: String = #fileID, line: Int = #line, _ body: () throws -> Void) {
    do {
        try body()
    } catch {
        failInChild("\(error)", file: file, line: line)
    }
}

/// Ends a test's own process as failed, and says why. Its standard error output goes nowhere; that of the process that
/// waits for it does not.
public func failInChild(_ words: String, file: String = #fileID, line: Int = #line) -> Never {
    close(0)  // in case there is no descriptor left
    let output = ck_open("/proc/\(getppid())/fd/2", O_WRONLY | O_APPEND | O_CLOEXEC, 0)
    if output >= 0 { _ = writeAll(output, "\(file):\(line): in a process of its own: \(words)\n") }
    exit(1)
}
