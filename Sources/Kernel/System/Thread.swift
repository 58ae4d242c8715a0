import CKernel
import Glibc
import Timeline

/// A thread of the operating system that can be joined.
///
/// Win32 counterpart: `CreateThread`, and `WaitForSingleObject` on its handle.
public final class Thread: @unchecked Sendable {
    private var handle: pthread_t
    private let lock = Lock()
    private var joined = false

    /// Starts a thread that runs `body`, with its own stack of 512 KiB.
    ///
    /// - Throws: EAGAIN when the system allows no more threads.
    public init(_ name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let start = Start(name: name, body: body)
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setstacksize(&attributes, Thread.stackSize)
        handle = pthread_t()
        // The new thread takes this reference over; if there is no new thread, it is taken back below.
        let argument = Unmanaged.passRetained(start)
        let code = pthread_create(
            &handle, &attributes,
            { argument in
                let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
                // The system keeps 15 bytes of a thread's name.
                String(start.name.prefix(15)).withCString { _ = ck_prctl(PR_SET_NAME, UInt(bitPattern: $0)) }
                Recorder.nameThread(start.name)
                start.body()
                return nil
            }, argument.toOpaque())
        if code != 0 {
            argument.release()
            throw SystemError(code, attempted: "start thread \(name)")
        }
    }

    /// Bytes of address space that a thread's stack takes; memory is used as far as the stack is touched.
    public static let stackSize = 512 * 1024

    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Waits until the thread has ended. A second call returns at once.
    public func join() {
        let wanted = lock.locked {
            defer { joined = true }
            return !joined
        }
        if wanted { pthread_join(handle, nil) }
    }

    deinit {
        if !joined { pthread_detach(handle) }
    }

    /// The number by which the system knows the calling thread. Win32 counterpart: `GetCurrentThreadId`.
    public static var currentID: Int32 { ck_gettid() }

    /// Processors that this process may use, at least 1.
    public static let processors = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))

    /// What a thread of this process is doing, by its number; nil when it has ended.
    public static func state(of id: Int32) -> State? {
        var buffer = [UInt8](repeating: 0, count: 512)
        let file = ck_open("/proc/self/task/\(id)/stat", O_RDONLY | O_CLOEXEC, 0)
        guard file >= 0 else { return nil }
        defer { close(file) }
        let count = read(file, &buffer, buffer.count)
        // The state is the letter after the name, which stands in parentheses and may hold anything else.
        guard count > 0, let end = buffer[..<count].lastIndex(of: UInt8(ascii: ")")), end + 2 < count else {
            return nil
        }
        return buffer[end + 2] == UInt8(ascii: "R") ? .runnable : .blocked
    }

    /// Whether a thread could use a processor now.
    public enum State: Sendable {
        /// It runs, or waits for a processor only.
        case runnable
        /// It waits for something else.
        case blocked
    }
}
