import CKernel
import Glibc
import Kernel

/// The three standard streams, whatever the program's parent made of them: closed, full, never read, or set not to
/// block.
public enum StandardStreams {
    /// Makes them safe to use. To be called before anything else is opened.
    ///
    /// `/dev/null` is opened in the place of each one that is closed: the system gives every new descriptor the lowest
    /// free number, so the first file, socket or ring would become the standard output, and what the program prints
    /// would go into it. A reader that goes away is an error like any other: SIGPIPE is ignored.
    public static func prepare() {
        signal(SIGPIPE, SIG_IGN)
        for number in STDIN_FILENO...STDERR_FILENO where ck_fcntl(number, F_GETFD, 0) < 0 {
            // The lowest free number is this one. It is meant to be inherited, as standard streams are.
            _ = ck_open("/dev/null", O_RDWR, 0)
        }
    }
}

/// Prints a line to the standard error output. Where no program reads that, the line is given up after a second.
public func complain(_ line: String) {
    _ = writeAll(STDERR_FILENO, line + "\n", until: .after(.seconds(1)))
}

/// Prints one line to the standard error output and ends the program with 2: what was asked for cannot be done.
public func refuse(_ line: String) -> Never {
    complain(line)
    exit(2)
}

/// Prints one line to the standard error output and ends the program with 1: it was tried, and went wrong.
public func fail(_ line: String) -> Never {
    complain(line)
    exit(1)
}

/// Writes a text to a descriptor, with no regard to buffers of the C library. A descriptor that does not block is waited
/// for, too.
/// - Parameter deadline: when to give up on a reader that does not read: ETIMEDOUT then. A part may have been written.
/// - Returns: the system's error number, or 0.
func writeAll(_ descriptor: Int32, _ text: String, until deadline: Deadline = .never) -> Int32 {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        if !deadline.isNever && !isWritable(descriptor, until: deadline) { return ETIMEDOUT }
        // A pipe or a terminal that is writable takes so much without waiting, whether or not it blocks.
        let piece = deadline.isNever ? rest : rest.prefix(Int(PIPE_BUF))
        let count = piece.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        if count >= 0 {
            rest = rest.dropFirst(count)
        } else if errno == EAGAIN {
            if !isWritable(descriptor, until: deadline) { return ETIMEDOUT }
        } else if errno != EINTR {
            return errno
        }
    }
    return 0
}

/// Waits until a descriptor takes bytes, or would say why not. False when it did not in time.
func isWritable(_ descriptor: Int32, until deadline: Deadline) -> Bool {
    while true {
        var wish = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        let most: UInt64 = 1_000_000_000
        let milliseconds = Int32(
            (min(deadline.isNever ? most : deadline.remaining, most) + 999_999) / 1_000_000)
        if poll(&wish, 1, milliseconds) > 0 { return true }
        if deadline.hasPassed { return false }
    }
}
