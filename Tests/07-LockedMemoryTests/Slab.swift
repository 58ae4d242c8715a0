import Glibc
import Kernel
import LockedMemory
import Testing

@Suite("Chapter 07: the slab of page-aligned buffers")
struct Chapter07LockedMemorySlab {
    // I7.1
    @Test(
        "a buffer begins with a page, fills whole pages, and shares none",
        arguments: [1, 10, 4_096, 4_097, 65_536])
    func alignment(size: Int) throws {
        let slab = try PageSlab(bufferSize: size, capacity: 9)
        #expect(slab.bufferSize == Page.count(bytes: size) * Page.size)
        var addresses: Set<Int> = []
        for _ in 1...9 {
            let buffer = try #require(slab.take())
            #expect(Int(bitPattern: buffer.baseAddress!) % Page.size == 0)
            #expect(buffer.count == slab.bufferSize)
            #expect(Page.count(UnsafeRawBufferPointer(buffer)) == Page.count(bytes: size))
            buffer.initializeMemory(as: UInt8.self, repeating: 7)
            for page in 0..<Page.count(bytes: size) {
                #expect(addresses.insert(Int(bitPattern: buffer.baseAddress!) + page * Page.size).inserted)
            }
        }
        #expect(slab.take() == nil)
        #expect(slab.counters.inUse == 9)
    }

    @Test("what comes back is kept up to the bound; the memory beyond that goes back to the system")
    func bound() throws {
        let slab = try PageSlab(bufferSize: Page.size, capacity: 8, maximumFree: 3)
        let all = (0..<8).compactMap { _ in slab.take() }
        for buffer in all { buffer[0] = 1 }
        #expect(all.allSatisfy(isResident))
        for buffer in all { slab.giveBack(buffer) }
        #expect(slab.counters.inUse == 0)
        #expect(slab.counters.free == 3)
        #expect(slab.counters.peak == 8)
        #expect(all.filter(isResident).count == 3)
        // All places are there again, each once; those with memory first.
        let again = (0..<8).compactMap { _ in slab.take() }
        #expect(Set(again.map { $0.baseAddress! }) == Set(all.map { $0.baseAddress! }))
        #expect(again.prefix(3).allSatisfy { $0[0] == 1 })
        #expect(again.dropFirst(3).allSatisfy { $0[0] == 0 })
        #expect(slab.take() == nil)
    }

    @Test("giving back twice, or to another slab, stops the program where the mistake is")
    func mistakes() async {
        await #expect(processExitsWith: .failure) {
            let slab = try PageSlab(bufferSize: 1, capacity: 2)
            let buffer = slab.take()!
            slab.giveBack(buffer)
            slab.giveBack(buffer)
        }
        await #expect(processExitsWith: .failure) {
            let (slab, other) = (
                try PageSlab(bufferSize: 1, capacity: 2), try PageSlab(bufferSize: 1, capacity: 2)
            )
            slab.giveBack(other.take()!)
        }
    }

    @Test("a slab of nothing is refused")
    func nothing() {
        for (size, capacity) in [(0, 1), (1, 0), (-1, 1), (1, -1), (.max / 2, 4)] {
            #expect(throws: SystemError.self) { try PageSlab(bufferSize: size, capacity: capacity) }
        }
    }

    private func isResident(_ buffer: UnsafeMutableRawBufferPointer) -> Bool {
        var page: UInt8 = 0
        return mincore(buffer.baseAddress, buffer.count, &page) == 0 && page & 1 == 1
    }
}

@Suite("Chapter 07: the switch between the modes")
struct Chapter07LockedMemoryModes {
    // I7.6
    @Test("over at one number of connections, back at a smaller one, and in between nothing changes")
    func hysteresis() {
        let modes = ModeSwitch(changingAt: ReceiveThresholds(zeroByteFrom: 10, bufferedUpTo: 4))
        #expect(modes.mode == .buffered)
        for count in 1...9 { #expect(!modes.connectionsAre(count)) }
        #expect(modes.mode == .buffered)
        #expect(modes.connectionsAre(10))
        #expect(modes.mode == .zeroByte)
        // One client that comes and goes at the threshold changes nothing.
        for count in [11, 10, 9, 10, 9, 10, 8, 5, 9] { #expect(!modes.connectionsAre(count)) }
        #expect(modes.mode == .zeroByte)
        #expect(!modes.connectionsAre(4))
        #expect(modes.mode == .buffered)
        for count in [5, 4, 3, 9] { #expect(!modes.connectionsAre(count)) }
        #expect(modes.changesMade == (1, 1))
    }

    // I7.6
    @Test("a budget that runs short changes over as well; a fixed policy never changes")
    func shortage() {
        let modes = ModeSwitch(changingAt: ReceiveThresholds(zeroByteFrom: 10, bufferedUpTo: 4))
        #expect(modes.budgetRanShort())
        #expect(!modes.budgetRanShort())
        #expect(modes.mode == .zeroByte)
        for mode in [ReceiveMode.buffered, .zeroByte] {
            let fixed = ModeSwitch(mode, changingAt: nil)
            #expect(!fixed.connectionsAre(1_000_000))
            #expect(!fixed.budgetRanShort())
            #expect(!fixed.connectionsAre(0))
            #expect(fixed.mode == mode)
            #expect(fixed.changesMade == (0, 0))
        }
    }

    // I7.6
    @Test("the standard thresholds lie apart, for every budget")
    func standard() {
        for pages in 1...300 {
            for each in [1, 2, 16] {
                let thresholds = ReceiveThresholds(budget: pages, pagesEach: each)
                #expect(thresholds.bufferedUpTo < thresholds.zeroByteFrom)
                #expect(thresholds.bufferedUpTo >= 1)
            }
        }
        let usual = ReceiveThresholds(budget: 8_192, pagesEach: 1)
        #expect(usual == ReceiveThresholds(zeroByteFrom: 6_144, bufferedUpTo: 4_096))
    }
}
