import CKernel
import Glibc
import Synchronization

/// The two queues that a process shares with the kernel: requests go in, answers come out. No liburing.
///
/// Several threads may push, submit and pop at once.
final class Ring: @unchecked Sendable {
    let descriptor: Int32
    private let memory: UnsafeMutableRawBufferPointer
    private let entryMemory: UnsafeMutableRawBufferPointer

    // The mapped words live as long as the mapping, which is as long as this object.
    private let submissionHead: UnsafeMutablePointer<Atomic<UInt32>>
    private let submissionTail: UnsafeMutablePointer<Atomic<UInt32>>
    private let submissionFlags: UnsafeMutablePointer<Atomic<UInt32>>
    private let submissionMask: UInt32
    private let completionHead: UnsafeMutablePointer<Atomic<UInt32>>
    private let completionTail: UnsafeMutablePointer<Atomic<UInt32>>
    private let completionMask: UInt32
    private let entries: UnsafeMutablePointer<io_uring_sqe>
    private let answers: UnsafeMutablePointer<io_uring_cqe>

    private let submission = Lock()
    private let completion = Lock()
    // Guarded by `submission`.
    private var requests = 0
    // Guarded by `completion`.
    private var answered = 0

    /// Requests that fit into the ring before they have to be submitted.
    static let submissionEntries: UInt32 = 256
    /// Answers that fit; the kernel keeps more aside.
    static let completionEntries: UInt32 = 8192

    init(entries wanted: UInt32 = submissionEntries) throws(SystemError) {
        var parameters = io_uring_params()
        // SUBMIT_ALL (Linux 5.18): one bad request does not hold back those behind it.
        parameters.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL
        parameters.cq_entries = max(Ring.completionEntries, 2 * wanted)
        let descriptor = try check("create a ring") { ck_io_uring_setup(wanted, &parameters) }
        self.descriptor = descriptor
        let needed = UInt32(IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG)
        let size = max(
            Int(parameters.sq_off.array) + Int(parameters.sq_entries) * 4,
            Int(parameters.cq_off.cqes) + Int(parameters.cq_entries) * MemoryLayout<io_uring_cqe>.stride)
        let entrySize = Int(parameters.sq_entries) * MemoryLayout<io_uring_sqe>.stride
        let map = { (length: Int, offset: Int64) -> UnsafeMutableRawPointer? in
            let address = mmap(
                nil, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, off_t(offset))
            return address == MAP_FAILED ? nil : address
        }
        guard parameters.features & needed == needed else {
            Glibc.close(descriptor)
            throw SystemError(ENOSYS, attempted: "use this kernel's io_uring")
        }
        guard let base = map(size, Int64(IORING_OFF_SQ_RING)) else {
            let error = SystemError.last("map a ring")
            Glibc.close(descriptor)
            throw error
        }
        guard let entryBase = map(entrySize, Int64(IORING_OFF_SQES)) else {
            let error = SystemError.last("map a ring's entries")
            // A mapping keeps the whole ring, also when its descriptor is closed.
            munmap(base, size)
            Glibc.close(descriptor)
            throw error
        }
        memory = UnsafeMutableRawBufferPointer(start: base, count: size)
        entryMemory = UnsafeMutableRawBufferPointer(start: entryBase, count: entrySize)
        let word = { (offset: UInt32) in (base + Int(offset)).assumingMemoryBound(to: Atomic<UInt32>.self) }
        submissionHead = word(parameters.sq_off.head)
        submissionTail = word(parameters.sq_off.tail)
        submissionFlags = word(parameters.sq_off.flags)
        submissionMask = parameters.sq_entries - 1
        completionHead = word(parameters.cq_off.head)
        completionTail = word(parameters.cq_off.tail)
        completionMask = parameters.cq_entries - 1
        entries = entryBase.assumingMemoryBound(to: io_uring_sqe.self)
        answers = (base + Int(parameters.cq_off.cqes)).assumingMemoryBound(to: io_uring_cqe.self)
        let array = (base + Int(parameters.sq_off.array)).assumingMemoryBound(to: UInt32.self)
        for index in 0..<parameters.sq_entries { array[Int(index)] = index }
    }

    deinit {
        munmap(memory.baseAddress, memory.count)
        munmap(entryMemory.baseAddress, entryMemory.count)
        Glibc.close(descriptor)
    }

    /// Why no ring with everything that the driver needs can be made here; nil when one can. Of the same size as the
    /// driver's, since the kernel charges its memory to `RLIMIT_MEMLOCK`: not from Linux 5.12 on, and from 6.14 on again.
    static let obstacle: SystemError? = {
        do throws(SystemError) {
            let ring = try Ring()
            // Cancelling a request that does not exist tells whether the kernel knows the call (Linux 6.0).
            if ck_io_uring_cancel(ring.descriptor, 1) == 0 || errno == ENOENT { return nil }
            return SystemError.last("cancel a request of a ring")
        } catch {
            return error
        }
    }()

    /// Writes one request. It starts when it is submitted.
    func push(_ fill: (UnsafeMutablePointer<io_uring_sqe>) -> Void) {
        submission.lock()
        defer { submission.unlock() }
        // Only this side writes the tail, under the lock. The kernel moves the head when it takes an entry.
        let tail = submissionTail.pointee.load(ordering: .relaxed)
        while tail &- submissionHead.pointee.load(ordering: .acquiring) > submissionMask {
            // Full: hand over what there is. Rare enough to hold the lock meanwhile.
            submit()
        }
        let entry = entries + Int(tail & submissionMask)
        fill(entry)
        ck_tsan_release(UnsafeMutableRawPointer(bitPattern: UInt(entry.pointee.user_data)))
        // Releasing: the kernel must not see the tail before the entry.
        submissionTail.pointee.store(tail &+ 1, ordering: .releasing)
        if entry.pointee.user_data != 0 { requests += 1 }
    }

    /// Written requests that the kernel has not taken.
    var written: UInt32 {
        let head = submissionHead.pointee.load(ordering: .acquiring)
        return submissionTail.pointee.load(ordering: .sequentiallyConsistent) &- head
    }

    /// Hands every written request to the kernel. When it returns, the kernel has all that were written before,
    /// whichever thread handed them over: a call that is under way on another thread is waited for, since the kernel lets
    /// one at a time take requests. Closing a descriptor and cancelling depend on that.
    func submit() {
        while true {
            let count = written
            if count == 0 { return }
            _ = ck_io_uring_enter(descriptor, count, 0, 0, nil)
        }
    }

    /// Hands over every written request, and waits until there is an answer or the deadline has passed.
    func submitAndWait(until deadline: Deadline) {
        let count = written
        if deadline.isNever {
            _ = ck_io_uring_enter(descriptor, count, 1, IORING_ENTER_GETEVENTS, nil)
        } else {
            let left = deadline.remaining
            var time = __kernel_timespec(
                tv_sec: Int64(left / 1_000_000_000), tv_nsec: Int64(left % 1_000_000_000))
            _ = ck_io_uring_enter(descriptor, count, left == 0 ? 0 : 1, IORING_ENTER_GETEVENTS, &time)
        }
    }

    /// Whether requests are in the ring whose answers have not been taken.
    var hasRequests: Bool { submission.locked { requests } != completion.locked { answered } }

    /// Whether an answer is there.
    var hasAnswers: Bool {
        completionHead.pointee.load(ordering: .relaxed) != completionTail.pointee.load(ordering: .acquiring)
    }

    /// Whether the kernel keeps answers aside, for lack of room. They come with the next wait.
    var hasOverflow: Bool { submissionFlags.pointee.load(ordering: .relaxed) & IORING_SQ_CQ_OVERFLOW != 0 }

    /// Takes answers, in the order they came. Returns how many were written to `into`.
    func pop(_ into: UnsafeMutableBufferPointer<io_uring_cqe>) -> Int {
        completion.lock()
        defer { completion.unlock() }
        var head = completionHead.pointee.load(ordering: .relaxed)
        // Acquiring: the answers must not be read before the tail that announces them.
        let tail = completionTail.pointee.load(ordering: .acquiring)
        var count = 0
        while head != tail, count < into.count {
            into[count] = answers[Int(head & completionMask)]
            ck_tsan_acquire(UnsafeMutableRawPointer(bitPattern: UInt(into[count].user_data)))
            if into[count].user_data != 0 { answered += 1 }
            head &+= 1
            count += 1
        }
        // Releasing: the kernel must not reuse an entry before it has been read.
        completionHead.pointee.store(head, ordering: .releasing)
        return count
    }

    /// Asks for a request to be cancelled; its answer comes either way. One that is only written is handed over
    /// first, so that it can be found. False when it has been answered.
    func cancel(_ tag: UInt64) -> Bool {
        submit()
        return ck_io_uring_cancel(descriptor, tag) == 0 || errno != ENOENT
    }
}
