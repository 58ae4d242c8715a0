import Glibc
import Kernel
import Stage
import Testing

extension KernelSuite {
    @Suite("shortage notice") struct ShortageNotices {
        private func listener(_ collector: Collector) throws -> Socket {
            let listener = try Socket.listener(on: .loopback())
            try listener.associate(with: collector, key: 5, driver: collector.driver)
            return listener
        }

        @Test(
            "it comes when a client finds no accept, once, and takes nothing", arguments: DriverKind.permitted
        )
        func shortage(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let (accept, socket, buffer) = (Overlapped(), Socket(), Buffer(2 * Address.capacity))
                try listener.accept(accept, socket, into: buffer.area, receiveLength: 0)
                let notice = Overlapped()
                try listener.noticeShortage(notice)
                // The first client is the accept's: no notice.
                _ = try Peer(connectingTo: listener.localAddress)
                #expect(try #require(collector.next()).operation === accept)
                #expect(collector.isSilent() && notice.isPending)
                // Nobody is there for the second one.
                let second = try Peer(connectingTo: listener.localAddress)
                let packet = try #require(collector.next())
                #expect(
                    packet.operation === notice && packet.bytes == 0 && packet.code == 0 && packet.key == 5)
                _ = try Peer(connectingTo: listener.localAddress)
                #expect(collector.isSilent())
                // It has taken nothing, and tells again when it is asked again.
                try listener.noticeShortage(notice)
                #expect(try #require(collector.next()).operation === notice)
                let late = Overlapped()
                let accepted = Socket()
                try listener.accept(late, accepted, into: buffer.area, receiveLength: 0)
                #expect(try #require(collector.next()).operation === late)
                let address = try second.socket.localAddress
                #expect(try accepted.remoteAddress == address)
            }
        }

        @Test("closing the listener cancels it; only a listener takes it", arguments: DriverKind.permitted)
        func closing(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let notice = Overlapped()
                try listener.noticeShortage(notice)
                #expect(throws: SystemError(EALREADY, attempted: "")) {
                    try listener.noticeShortage(notice)
                }
                listener.close()
                let packet = try #require(collector.next())
                #expect(packet.operation === notice && packet.code == ECANCELED)
                #expect(throws: SystemError(EBADF, attempted: "")) { try listener.noticeShortage(notice) }
                #expect(throws: SystemError(EINVAL, attempted: "")) {
                    try Socket.unbound().noticeShortage(Overlapped())
                }
            }
        }

        @Test(
            "a silent client has found its accept: no notice for it, but for the next",
            arguments: DriverKind.permitted)
        func silentIsConsumed(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let (accept, socket, buffer) = (Overlapped(), Socket(), Buffer(16 + 2 * Address.capacity))
                try listener.accept(accept, socket, into: buffer.area, receiveLength: 16)
                let notice = Overlapped()
                try listener.noticeShortage(notice)
                let silent = try Peer(connectingTo: listener.localAddress)
                #expect(eventually { listener.acceptsAwaitingData == 1 })
                #expect(collector.isSilent() && notice.isPending)
                let next = try Peer(connectingTo: listener.localAddress)
                #expect(try #require(collector.next()).operation === notice)
                #expect(accept.isPending)
                withExtendedLifetime((silent, next)) {}
            }
        }

        @Test("accepts that hold a silent client are counted", arguments: DriverKind.permitted)
        func held(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let listener = try listener(collector)
                let (accept, socket, buffer) = (Overlapped(), Socket(), Buffer(16 + 2 * Address.capacity))
                try listener.accept(accept, socket, into: buffer.area, receiveLength: 16)
                #expect(listener.acceptsAwaitingData == 0)
                let peer = try Peer(connectingTo: listener.localAddress)
                #expect(eventually { listener.acceptsAwaitingData == 1 } && collector.isSilent())
                peer.send("x")
                #expect(try #require(collector.next()).operation === accept)
                #expect(listener.acceptsAwaitingData == 0)
            }
        }
    }
}
