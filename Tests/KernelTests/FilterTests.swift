import CKernel
import Glibc
import Kernel
import Stage
import Testing

/// The kernel's small packet language, as far as filters use it: whether a packet is kept.
private func keeps(_ program: [SocketFilter.Instruction], transport: [UInt8], network: [UInt8]) -> Bool? {
    func byte(_ offset: UInt32) -> UInt32? {
        let start = UInt32(bitPattern: SKF_NET_OFF)
        let (bytes, place) = offset >= start ? (network, Int(offset - start)) : (transport, Int(offset))
        return bytes.indices.contains(place) ? UInt32(bytes[place]) : nil
    }
    var (accumulator, place): (UInt32, Int) = (0, 0)
    while place < program.count {
        let step = program[place]
        place += 1
        switch step.code {
        case BPF_LD | BPF_B | BPF_ABS:
            guard let value = byte(step.value) else { return false }
            accumulator = value
        case BPF_LD | BPF_W | BPF_ABS:
            let four = (0..<4).compactMap { byte(step.value + $0) }
            guard four.count == 4 else { return false }
            accumulator = four.reduce(0) { $0 << 8 | $1 }
        case BPF_ALU | BPF_AND | BPF_K: accumulator &= step.value
        case BPF_JMP | BPF_JA: place += Int(step.value)
        case BPF_JMP | BPF_JEQ | BPF_K: place += Int(accumulator == step.value ? step.ifTrue : step.ifFalse)
        case BPF_JMP | BPF_JGE | BPF_K: place += Int(accumulator >= step.value ? step.ifTrue : step.ifFalse)
        case BPF_JMP | BPF_JGT | BPF_K: place += Int(accumulator > step.value ? step.ifTrue : step.ifFalse)
        case BPF_RET | BPF_K: return step.value != 0
        default: return nil
        }
    }
    // The kernel takes no program that may run over its end.
    return nil
}

private func keeps(_ filter: SocketFilter, _ address: Address, flags: UInt8) -> Bool? {
    var transport = [UInt8](repeating: 0, count: 20)
    transport[13] = flags
    let number = bytes(of: address)
    let network =
        address.isIPv6
        ? [0x6f] + [UInt8](repeating: 0xaa, count: 7) + number + [UInt8](repeating: 0xbb, count: 16)
        : [0x45] + [UInt8](repeating: 0xaa, count: 11) + number + [UInt8](repeating: 0xbb, count: 4)
    return keeps(filter.program, transport: transport, network: network)
}

private func bytes(of address: Address) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: address.isIPv6 ? 16 : 4)
    inet_pton(address.isIPv6 ? AF_INET6 : AF_INET, address.host, &bytes)
    return bytes
}

private func address(_ bytes: [UInt8]) -> Address {
    var text = [CChar](repeating: 0, count: 64)
    _ = inet_ntop(bytes.count == 16 ? AF_INET6 : AF_INET, bytes, &text, 64)
    return Address(
        String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self), port: 9)!
}

/// Whether the first bits are the same: said as plainly as it can be.
private func isIn(_ address: [UInt8], _ range: [UInt8], _ prefix: Int) -> Bool {
    guard address.count == range.count else { return false }
    for bit in 0..<prefix {
        let difference: UInt8 = address[bit / 8] ^ range[bit / 8]
        if difference >> UInt8(7 - bit % 8) & 1 == 1 { return false }
    }
    return true
}

extension KernelSuite {
    /// Ranges of addresses, and what listeners drop.
    @Suite("filters") struct Filters {
        @Test("ranges are read and written, and what is none is nil")
        func texts() throws {
            for (text, written) in [
                ("10.0.0.0/8", "10.0.0.0/8"), ("10.1.2.3/8", "10.0.0.0/8"), ("127.0.0.1", "127.0.0.1"),
                ("127.0.0.1/32", "127.0.0.1"), ("0.0.0.0/0", "0.0.0.0/0"), ("::1", "::1"),
                ("2001:db8:ffff::/33", "2001:db8:8000::/33"), ("::/0", "::/0"),
                ("::ffff:10.0.0.7", "10.0.0.7"), ("::ffff:10.1.0.0/104", "10.0.0.0/8"),
                ("::ffff:0:0/95", "::fffe:0:0/95"),
            ] {
                #expect(AddressRange(text)?.description == written, "\(text)")
            }
            for text in [
                "", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/8/8", "10.0.0.0/-1",
                "a",
            ] {
                #expect(AddressRange(text) == nil, "\(text)")
            }
        }

        @Test("an IPv4 address in IPv6's clothes is the IPv4 address")
        func clothes() throws {
            let clothed = try #require(Address("::ffff:127.0.0.3", port: 80))
            #expect(clothed.unmapped == Address("127.0.0.3", port: 80))
            #expect(try #require(AddressRange("127.0.0.0/8")).contains(clothed))
            #expect(!(try #require(AddressRange("::/0")).contains(clothed)))
            #expect(Address.loopback6().unmapped == .loopback6())
        }

        @Test("a filter drops the requests of those in its ranges, and nothing else, whatever the ranges")
        func interpreted() throws {
            var numbers = SystemRandomNumberGenerator()
            for _ in 0..<120 {
                // Close together, so that they meet often.
                func some(_ count: Int) -> [UInt8] {
                    (0..<count).map { _ in [0, 0, 1, 127, 128, 255].randomElement(using: &numbers)! }
                }
                var ranges: [(bytes: [UInt8], prefix: Int)] = []
                for _ in 0..<Int.random(in: 0...12, using: &numbers) {
                    let count = Bool.random(using: &numbers) ? 4 : 16
                    ranges.append(
                        (
                            some(count),
                            [0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 96, 127, 128]
                                .filter { $0 <= 8 * count }.randomElement(using: &numbers)!
                        ))
                }
                let values = ranges.map { AddressRange(address($0.bytes), prefix: $0.prefix) }
                let filter = try #require(SocketFilter(dropping: values))
                for _ in 0..<60 {
                    var probe = some(Bool.random(using: &numbers) ? 4 : 16)
                    if let near = ranges.randomElement(using: &numbers), Bool.random(using: &numbers) {
                        probe = near.bytes
                        let bit = Int.random(in: 0..<8 * probe.count, using: &numbers)
                        if Bool.random(using: &numbers) { probe[bit / 8] ^= 0x80 >> UInt8(bit % 8) }
                    }
                    let isBanned = ranges.contains { isIn(probe, $0.bytes, $0.prefix) }
                    #expect(values.contains { $0.contains(address(probe)) } == isBanned)
                    // A request, also with the bits of congestion control; and everything that is none.
                    for flags: UInt8 in [0x02, 0xc2] {
                        #expect(keeps(filter, address(probe), flags: flags) == !isBanned)
                    }
                    for flags: UInt8 in [0x10, 0x12, 0x18, 0x11, 0x04, 0x14] {
                        #expect(keeps(filter, address(probe), flags: flags) == true)
                    }
                }
            }
        }

        @Test("a filter longer than the kernel takes is none")
        func length() throws {
            func many(_ count: Int) -> [AddressRange] {
                (0..<count).map { AddressRange(first: UInt32(2 * $0)) }
            }
            let longest = try #require(SocketFilter(dropping: many(2_042)))
            #expect(longest.count <= SocketFilter.longest && SocketFilter(dropping: many(2_043)) == nil)
            guard SocketFilter.isPermitted else { return }
            let listener = try Socket.listener(on: .loopback())
            do throws(SystemError) {
                try listener.attach(longest)
            } catch {
                // Systems before Linux 6.8 have less memory for options than that.
                #expect(error.code == ENOMEM)
            }
        }

        @Test(
            "the requests of a banned address are dropped; others connect, and what stands goes on",
            .enabled(if: SocketFilter.isPermitted, "a filter needs CAP_NET_ADMIN here"),
            arguments: DriverKind.permitted)
        func dropped(kind: DriverKind) throws {
            let listener = try Socket.listener(on: .loopback())
            try listener.setBlocking(true)
            let server = try listener.localAddress
            let (good, bad) = (
                try #require(Address("127.0.0.2", port: 0)), try #require(Address("127.0.0.3", port: 0))
            )
            let early = try Socket.connected(to: server, from: bad)
            let served = try #require(try listener.acceptNow())
            // One more has asked, and is not accepted yet.
            let waiting = try Socket.connected(to: server, from: bad)
            try listener.attach(try #require(SocketFilter(dropping: [AddressRange(bad)])))
            try withCollector(kind) { collector in
                let late = try Socket(boundTo: bad)
                try late.associate(with: collector, key: 1, driver: collector.driver)
                let before = try #require(listener.droppedPackets)
                let request = Buffer(0)
                try late.connect(request, to: server)
                try #require(eventually { (listener.droppedPackets ?? 0) > before })
                let other = try Socket.connected(to: server, from: good)
                #expect(try #require(try listener.acceptNow()).remoteAddress == waiting.localAddress)
                let second = try #require(try listener.acceptNow())
                #expect(try second.remoteAddress == other.localAddress && collector.count == 0)
                // The accepted one has inherited the filter, and its client's packets still come.
                try early.say("before")
                #expect(try served.hear(6) == "before")
                try waiting.say("too")
                try other.say("other")
                #expect(try second.hear(5) == "other")
                // The other family and another address: the newest filter holds, at once.
                try listener.attach(try #require(SocketFilter(dropping: [AddressRange(good)])))
                // The system asks again after a second, and is heard.
                let packet = try #require(collector.next())
                #expect(packet.code == 0 && packet.operation === request)
                try listener.detachFilter()
                try listener.detachFilter()
                #expect((try? Socket.connected(to: server, from: good)) != nil)
            }
        }

        @Test(
            "over IPv6, and for both families on one listener",
            .enabled(if: SocketFilter.isPermitted, "a filter needs CAP_NET_ADMIN here"),
            .enabled(if: Address.loopbacks.contains(.loopback6()), "this machine has no ::1"),
            arguments: ["::1/128", "127.0.0.0/8"])
        func families(banned: String) throws {
            let listener = try Socket.listener(on: .any6())
            let port = try listener.localAddress.port
            let range = try #require(AddressRange(banned))
            try listener.attach(try #require(SocketFilter(dropping: [range])))
            let (bad, good) =
                range.isIPv6
                ? (Address.loopback6(port: port), Address.loopback(port: port))
                : (Address.loopback(port: port), Address.loopback6(port: port))
            try withCollector(DriverKind.permitted[0]) { collector in
                let socket = try Socket(boundTo: bad.isIPv6 ? .loopback6() : .loopback())
                try socket.associate(with: collector, key: 1, driver: collector.driver)
                let request = Buffer(0)
                try socket.connect(request, to: bad)
                try #require(eventually { (listener.droppedPackets ?? 0) > 0 })
                #expect((try? Socket.connected(to: good)) != nil)
                #expect(collector.count == 0)
                socket.close()
                #expect(collector.next()?.code == SystemError.cancelled)
            }
        }

        @Test(
            "without the right it says so, and the listener is as it was",
            .enabled(if: geteuid() == 0 || !SocketFilter.isPermitted, "only root can give the right up"))
        func forbidden() async {
            await #expect(processExitsWith: .success) {
                inChild {
                    if geteuid() == 0, setuid(65_534) != 0 { failInChild("cannot give the right up") }
                    let listener = try Socket.listener(on: .loopback())
                    let filter = try #require(SocketFilter(dropping: [AddressRange(.loopback())]))
                    // An older system asks for no right.
                    guard !SocketFilter.isPermitted else { return }
                    do throws(SystemError) {
                        try listener.attach(filter)
                        failInChild("attached without the right")
                    } catch {
                        guard error.code == EPERM, error.description.contains("CAP_NET_ADMIN") else {
                            failInChild("\(error)")
                        }
                    }
                    try listener.detachFilter()
                    _ = try Socket.connected(to: try listener.localAddress)
                }
            }
        }
    }
}

extension AddressRange {
    /// One address of IPv4.
    fileprivate init(first: UInt32) {
        self.init(address(withUnsafeBytes(of: first.bigEndian) { Array($0) }))
    }
}
