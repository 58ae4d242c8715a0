import CKernel
import Glibc
import Kernel
import Synchronization

/// The floor: an echo server that is nothing but a loop over epoll, on one thread, with one buffer for all.
///
/// It does what such loops do in articles, and no more: no limits, no state for a connection, no half-sent answer. It
/// is here to be compared with.
final class PlainLoop: Sendable {
    let address: Address
    private let thread: Kernel.Thread
    private let stopping: Int32

    init() throws {
        let listener = try Socket.listener(on: .loopback())
        address = try listener.localAddress
        let stopping = eventfd(0, Int32(EFD_CLOEXEC))
        self.stopping = stopping
        thread = try Kernel.Thread("plain loop") { PlainLoop.run(listener, stopping) }
    }

    func stop() {
        _ = eventfd_write(stopping, 1)
        thread.join()
        close(stopping)
    }

    private static func run(_ listener: Socket, _ stopping: Int32) {
        let poller = epoll_create1(Int32(EPOLL_CLOEXEC))
        let accepting = listener.descriptor
        add(poller, accepting)
        add(poller, stopping)
        let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: 128)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 64)
        var open: Set<Int32> = []
        while true {
            let count = epoll_wait(poller, events, 128, -1)
            for index in 0..<max(0, Int(count)) {
                let descriptor = Int32(truncatingIfNeeded: events[index].data.u64)
                if descriptor == accepting {
                    let flags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
                    let client = ck_accept4(accepting, nil, nil, flags)
                    guard client >= 0 else { continue }
                    var one: Int32 = 1
                    setsockopt(client, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
                    add(poller, client)
                    open.insert(client)
                } else if descriptor == stopping {
                    for client in open { close(client) }
                    close(poller)
                    events.deallocate()
                    buffer.deallocate()
                    return listener.close()
                } else {
                    let received = recv(descriptor, buffer, 4096, 0)
                    if received > 0 {
                        guard send(descriptor, buffer, received, Int32(MSG_NOSIGNAL)) != received else {
                            continue
                        }
                    } else if received < 0, errno == EAGAIN {
                        continue
                    }
                    close(descriptor)
                    open.remove(descriptor)
                }
            }
        }
    }

    private static func add(_ poller: Int32, _ descriptor: Int32) {
        var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(u64: UInt64(descriptor)))
        epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &event)
    }
}
