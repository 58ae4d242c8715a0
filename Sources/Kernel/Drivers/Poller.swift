import CKernel
import Glibc

/// The system's readiness notices: one descriptor that tells which of many others could be used now.
///
/// This is `epoll` as it is. The driver of that name stands on it, and chapter 00 uses it by itself.
public struct Poller: ~Copyable, @unchecked Sendable {
    let descriptor: Int32

    /// - Throws: EMFILE when no descriptor is left.
    public init() throws(SystemError) {
        descriptor = try check("create an epoll descriptor") { epoll_create1(Int32(EPOLL_CLOEXEC)) }
    }

    deinit { close(descriptor) }

    /// What a descriptor is ready for.
    public struct Readiness: OptionSet, Sendable {
        /// The system's bits.
        public let rawValue: UInt32
        /// Takes the system's bits.
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// Bytes, a connection or the end of the stream can be taken.
        public static let readable = Readiness(rawValue: EPOLLIN.rawValue)
        /// Bytes can be given.
        public static let writable = Readiness(rawValue: EPOLLOUT.rawValue)
        /// The other side will send no more.
        public static let ended = Readiness(rawValue: EPOLLRDHUP.rawValue | EPOLLHUP.rawValue)
        /// The connection has failed.
        public static let failed = Readiness(rawValue: EPOLLERR.rawValue)
        /// The other side has sent an urgent byte (`MSG_OOB`), and what came before it has not all been taken: a receive
        /// stops there, however much there is behind it.
        public static let urgent = Readiness(rawValue: EPOLLPRI.rawValue)
        // Written out: a list in brackets would be an array on the heap, where nothing optimises it away.
        static let moreThanBytes = Readiness(rawValue: ended.rawValue | failed.rawValue | urgent.rawValue)
        static let anythingInward = Readiness(rawValue: readable.rawValue | moreThanBytes.rawValue)
        /// Tell only of changes, not for as long as it is so.
        public static let onChange = Readiness(rawValue: EPOLLET.rawValue)
    }

    /// Registers a descriptor. Its notices will carry `token`.
    public func add(_ descriptor: Int32, _ interest: Readiness, token: UInt64) throws(SystemError) {
        var event = epoll_event(events: interest.rawValue, data: epoll_data_t(u64: token))
        _ = try check("register descriptor \(descriptor)") {
            epoll_ctl(self.descriptor, EPOLL_CTL_ADD, descriptor, &event)
        }
    }

    /// Asks for other notices about a descriptor that is registered. They will carry `token`.
    public func change(_ descriptor: Int32, _ interest: Readiness, token: UInt64) throws(SystemError) {
        var event = epoll_event(events: interest.rawValue, data: epoll_data_t(u64: token))
        _ = try check("change what is asked of descriptor \(descriptor)") {
            epoll_ctl(self.descriptor, EPOLL_CTL_MOD, descriptor, &event)
        }
    }

    /// Takes a descriptor out again. One that is not registered is no error.
    public func remove(_ descriptor: Int32) {
        var event = epoll_event()
        _ = epoll_ctl(self.descriptor, EPOLL_CTL_DEL, descriptor, &event)
    }

    /// Waits until something is ready or the deadline passes. Returns how many notices were written to `events`;
    /// 0 when the deadline has passed, and also when a signal came (ask again).
    public func wait(_ events: UnsafeMutableBufferPointer<epoll_event>, until deadline: Deadline) -> Int {
        let count: Int32
        if deadline.isNever {
            count = ck_epoll_wait(descriptor, events.baseAddress, Int32(events.count), nil)
        } else {
            let left = deadline.remaining
            var timeout = timespec(tv_sec: Int(left / 1_000_000_000), tv_nsec: Int(left % 1_000_000_000))
            count = ck_epoll_wait(descriptor, events.baseAddress, Int32(events.count), &timeout)
        }
        return max(0, Int(count))
    }
}
