import Framing
import FramingPitfalls
import Testing

@Suite("Chapter 06: the buffer that is appended to and split")
struct Chapter06FramingBuffers {
    @Test("What is appended comes off the front in the same order, in any pieces")
    func order() throws {
        var dice = Dice(seed: 6)
        var buffer = SplitBuffer(limit: 100)
        var expected: [UInt8] = []
        var next: UInt8 = 0
        for _ in 0..<10_000 {
            if dice.roll(2) == 0 {
                let bytes = (0..<dice.roll(40)).map { UInt8(truncatingIfNeeded: Int(next) + $0) }
                do throws(FrameError) {
                    try buffer.append(bytes.span.bytes)
                    expected += bytes
                    next &+= UInt8(bytes.count)
                } catch {
                    #expect(error == FrameError(.bufferFull(limit: 100), at: expected.count))
                    #expect(expected.count + bytes.count > 100)
                }
            } else {
                let count = dice.roll(expected.count + 1)
                if dice.roll(2) == 0 {
                    try buffer.removeFirst(count)
                } else {
                    let front = try buffer.split(first: count)
                    #expect(contents(front) == Array(expected[..<count]))
                }
                expected.removeFirst(count)
            }
            #expect(buffer.count == expected.count && contents(buffer) == expected)
        }
        #expect(buffer.peakCapacity <= 100)
    }

    // I6.3
    @Test("The limit is exact at 0, 1 and any other size, and memory follows the bytes that are there")
    func limit() throws {
        for limit in [0, 1, 63, 64, 65, 100_000] {
            var buffer = SplitBuffer(limit: limit)
            #expect(buffer.capacity == 0)
            let one: [UInt8] = [1]
            for count in 1..<max(1, min(limit + 1, 300)) {
                try buffer.append(one.span.bytes)
                #expect(buffer.capacity <= min(limit, max(64, 2 * count)))
            }
            let rest = [UInt8](repeating: 2, count: limit - buffer.count)
            try buffer.append(rest.span.bytes)
            #expect(buffer.count == limit && buffer.peakCapacity <= limit)
            var isFull = false
            do throws(FrameError) {
                try buffer.append(one.span.bytes)
            } catch {
                isFull = error.fault == .bufferFull(limit: limit)
            }
            #expect(isFull && buffer.count == limit)
            buffer.removeAll()
            #expect(buffer.isEmpty && buffer.capacity <= SplitBuffer.keptCapacity)
        }
    }

    @Test("More than there is cannot be split off")
    func tooMany() throws {
        var buffer = SplitBuffer(limit: 10)
        try buffer.append("abc")
        var faults: [FrameError] = []
        for count in [-1, 4, Int.max, Int.min] {
            do throws(FrameError) { try buffer.removeFirst(count) } catch { faults.append(error) }
            do throws(FrameError) { _ = try buffer.split(first: count) } catch { faults.append(error) }
        }
        #expect(faults.count == 8)
        #expect(contents(buffer) == Array("abc".utf8))
    }
}
