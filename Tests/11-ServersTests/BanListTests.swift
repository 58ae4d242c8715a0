import Kernel
import Servers
import Testing

/// Bans are a set of addresses: compared with the plainest set there is.
@Suite("bans") struct BanListTests {
    private func range(_ text: String) throws -> AddressRange { try #require(AddressRange(text), "\(text)") }

    @Test("what was banned and let in again is what a set of addresses says, and in as few ranges as can be")
    func model() throws {
        var numbers = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            var (list, model) = (BanList(), [Bool](repeating: false, count: 64))
            for _ in 0..<30 {
                // 10.0.0.0/26 is the whole world: prefixes of 26 to 32.
                let bits = Int.random(in: 0...6, using: &numbers)
                let first = (Int.random(in: 0..<64, using: &numbers) >> (6 - bits)) << (6 - bits)
                let isAdded = Int.random(in: 0..<3, using: &numbers) > 0
                let chosen = try range("10.0.0.\(first)/\(26 + bits)")
                if isAdded { list.add(chosen) } else { list.remove(chosen) }
                for place in first..<first + (64 >> bits) { model[place] = isAdded }
                for place in 0..<64 {
                    #expect(list.contains(try #require(Address("10.0.0.\(place)", port: 7))) == model[place])
                }
                #expect(list.ranges == list.ranges.sorted() && list.ranges.count == fewest(model[...]))
                #expect(!list.contains(try #require(Address("10.0.0.64", port: 0))))
            }
            // The order of the calls leaves no trace.
            #expect(BanList(list.ranges.shuffled()) == list)
        }
    }

    /// The least number of ranges that are these addresses.
    private func fewest(_ addresses: ArraySlice<Bool>) -> Int {
        if addresses.allSatisfy({ $0 }) { return 1 }
        if !addresses.contains(true) { return 0 }
        let middle = addresses.startIndex + addresses.count / 2
        return fewest(addresses[..<middle]) + fewest(addresses[middle...])
    }

    @Test("one address out of everything leaves the 32 ranges around it")
    func everything() throws {
        var list = BanList([try range("0.0.0.0/0"), try range("::/0")])
        #expect(list.ranges.count == 2 && list.contains(.loopback()) && list.contains(.loopback6()))
        list.remove(try range("127.0.0.1"))
        list.remove(try range("::1"))
        #expect(list.ranges.count == 32 + 128 && !list.contains(.loopback()) && !list.contains(.loopback6()))
        list.add(try range("::1"))
        list.add(try range("127.0.0.1"))
        #expect(list.description == "0.0.0.0/0 ::/0")
        list.remove(try range("0.0.0.0/0"))
        #expect(list.description == "::/0")
        list.clear()
        #expect(list.isEmpty && list == BanList())
        list.remove(try range("::1"))
        #expect(list.isEmpty)
    }

    @Test("the families are apart, and an IPv4 address is the same in IPv6's clothes")
    func families() throws {
        var list = BanList()
        list.add(try range("::ffff:10.0.0.1"))
        #expect(list.description == "10.0.0.1")
        #expect(list.contains(try #require(Address("10.0.0.1", port: 1))))
        #expect(list.contains(try #require(Address("::ffff:10.0.0.1", port: 1))))
        #expect(!list.contains(try #require(Address("::10.0.0.1", port: 1))))
        list.remove(try range("10.0.0.1"))
        #expect(list.isEmpty)
    }

    @Test("its filter is as long as its ranges, and none when there are too many")
    func filter() throws {
        var list = BanList()
        let empty = try #require(list.filter).count
        for number in 0..<3_000 { list.add(try range("10.\(number / 128).\(number % 128 * 2).1")) }
        #expect(list.ranges.count == 3_000 && list.filter == nil)
        // Neighbours take one place together.
        list.clear()
        for number in 0..<4_096 { list.add(try range("10.0.\(number / 256).\(number % 256)")) }
        #expect(list.description == "10.0.0.0/20")
        #expect(list.filter?.count == empty + 3)
    }
}
