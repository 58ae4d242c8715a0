import CKernel
import CompletionPorts
import Glibc
import Kernel
import Stage
import Synchronization

/// ⚠︎ Broken on purpose: a ring, used as it comes. The kernel ties every request to the thread that submitted it.
final class BrokenBareRing: @unchecked Sendable {
    private let descriptor: Int32
    private let memory: UnsafeMutableRawPointer
    private let entries: UnsafeMutablePointer<io_uring_sqe>
    private let parameters: io_uring_params
    private static let size = 65_536

    init() throws(SystemError) {
        var wanted = io_uring_params()
        let descriptor = ck_io_uring_setup(4, &wanted)
        guard descriptor >= 0 else { throw SystemError(errno, attempted: "create a ring") }
        self.descriptor = descriptor
        parameters = wanted
        let map = { (offset: Int64) -> UnsafeMutableRawPointer? in
            let address = mmap(
                nil, BrokenBareRing.size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, off_t(offset))
            return address == MAP_FAILED ? nil : address
        }
        // Both mappings are asked for larger than they are; the kernel gives as much as there is.
        guard let ring = map(Int64(IORING_OFF_SQ_RING)), let requests = map(Int64(IORING_OFF_SQES)) else {
            Glibc.close(descriptor)
            throw SystemError(errno, attempted: "map a ring")
        }
        memory = ring
        entries = requests.assumingMemoryBound(to: io_uring_sqe.self)
    }

    deinit {
        munmap(memory, BrokenBareRing.size)
        munmap(entries, BrokenBareRing.size)
        Glibc.close(descriptor)
    }

    private func word(_ offset: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (memory + Int(offset)).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    /// Submits one receive, from the calling thread.
    func receive(_ socket: Int32, into buffer: UnsafeMutableRawBufferPointer) -> Bool {
        ck_sqe_fill(
            entries, UInt8(IORING_OP_RECV.rawValue), socket, 0, buffer.baseAddress, UInt32(buffer.count), 0, 1
        )
        let array = (memory + Int(parameters.sq_off.array)).assumingMemoryBound(to: UInt32.self)
        array[0] = 0
        word(parameters.sq_off.tail).pointee.store(1, ordering: .releasing)
        return ck_io_uring_enter(descriptor, 1, 0, 0, nil) == 1
    }

    /// The answer to it: a number of bytes or a negative error; nil if there is none in time.
    func answer(within patience: Duration) -> Int32? {
        let tail = word(parameters.cq_off.tail)
        guard eventually(within: patience, { tail.pointee.load(ordering: .acquiring) > 0 }) else {
            return nil
        }
        return (memory + Int(parameters.cq_off.cqes)).assumingMemoryBound(to: io_uring_cqe.self)[0].res
    }
}

/// A thread posts a receive and ends. What becomes of the receive?
public enum IssuerExits {
    /// For the demo and the tests. The broken half needs a machine that permits io_uring.
    public static let pitfall = Pitfall(
        slug: "issuer-exits",
        title: "the thread that posted a request ends, and the kernel cancels the request",
        broken: { _ in
            let pair = try Pair()
            let ring = try BrokenBareRing()
            let request = Request()
            let posted = Counter()
            let issuer = startThread("issuer") {
                if ring.receive(pair.server.descriptor, into: request.memory) { posted.add() }
            }
            issuer.join()
            // Some kernels cancel the request at once, others when it would go on: with the first bytes.
            try pair.client.say("hello")
            let answer = ring.answer(within: Gate.patience)
            return Observation(
                happened: posted.value == 1 && answer == -ECANCELED,
                lines: [
                    "this half uses a bare ring, whatever the driver: over epoll no thread is tied to its requests",
                    "a thread submitted a receive and ended",
                    "the client spoke; the ring's answer: "
                        + (answer.map { $0 < 0 ? SystemError.text(-$0) : "\($0) bytes" } ?? "none"),
                ])
        },
        fixed: { driver in
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 1)
            let request = Request()
            let issuer = startThread("issuer") {
                try? pair.server.receive(request, into: request.memory)
            }
            issuer.join()
            // Time for a cancellation to become a packet, if there were one.
            let early = port.dequeue(timeout: .milliseconds(20))
            try pair.client.say("hello")
            let packet = try port.next()
            let text = request.text(packet.bytes)
            pair.server.close()
            port.close()
            var isEarly = true
            if case .timedOut = early { isEarly = false }
            return Observation(
                happened: isEarly || packet.errorCode != 0 || text != "hello",
                lines: [
                    "a thread posted a receive and ended",
                    isEarly ? "a packet came before the client said a word" : "the receive stayed pending",
                    "then the client spoke, and the packet brought \(text.count) bytes: \"\(text)\"",
                ])
        })
}
