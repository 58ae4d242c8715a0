import FileTransfer
import Kernel
import Testing

@Suite("Chapter 08: the two halves of a transfer, step by step")
struct Chapter08FileTransferStates {
    private static let limits = TransferLimits(answer: .nanoseconds(100), stall: .nanoseconds(1_000))

    private func sending(_ size: UInt64, piece: Int = 10) -> TransferState {
        TransferState(size: size, pieceLimit: piece, limits: Self.limits, now: 0)
    }

    /// The file has been made, and its sender hears that this side agrees.
    private func receiving(
        _ size: UInt64, _ limits: TransferLimits = limits, now: UInt64 = 0
    ) -> TransferState {
        var state = TransferState(size: size, limits: limits, now: now)
        #expect(state.agreed(now: now) == .wait)
        return state
    }

    // I8.3
    @Test("announce, agree, pieces, complete, verified")
    func inOrder() {
        var state = sending(25)
        #expect(state.agreed(now: 1) == .wait)
        #expect(state.summedUp(10, now: 2) == .piece(offset: 0, count: 10))
        state.pieceBegun(10)
        #expect(state.summedUp(15, now: 2) == .wait)
        #expect(state.pieceSent(now: 3) == .piece(offset: 10, count: 10))
        state.pieceBegun(10)
        #expect(state.pieceSent(now: 4) == .piece(offset: 20, count: 5))
        state.pieceBegun(5)
        #expect(state.pieceSent(now: 5) == .complete)
        #expect(state.verified() == .whole)
        #expect(state.phase == .over)
    }

    @Test("an empty file has no pieces; a short one is one piece, when it has been summed up")
    func corners() {
        var empty = sending(0)
        #expect(empty.agreed(now: 1) == .complete)
        var short = sending(5)
        #expect(short.mayBeSummed == 5)
        #expect(short.agreed(now: 1) == .wait)
        #expect(short.summedUp(5, now: 2) == .piece(offset: 0, count: 5))
        short.pieceBegun(5)
        #expect(short.pieceSent(now: 3) == .complete)
    }

    @Test("what is sent has been summed up, and the summing up does not get far ahead")
    func abreast() {
        var state = sending(100)
        #expect(state.agreed(now: 1) == .wait)
        #expect(state.mayBeSummed == 20)
        #expect(state.summedUp(9, now: 2) == .wait)
        #expect(state.summedUp(4, now: 3) == .piece(offset: 0, count: 10))
        state.pieceBegun(10)
        #expect(state.mayBeSummed == 20)
        #expect(state.pieceSent(now: 4) == .wait)
        #expect(state.mayBeSummed == 30)
        #expect(state.summedUp(6, now: 1_003) == .wait)
        #expect(state.tick(now: 2_002) == .wait)
        #expect(state.summedUp(1, now: 2_002) == .piece(offset: 10, count: 10))
    }

    // I8.3
    @Test("what comes twice or too early ends it; what comes too late changes nothing")
    func outOfPlace() {
        var twice = sending(5)
        _ = twice.agreed(now: 1)
        #expect(twice.agreed(now: 2) == .failed(.nonsense, tells: true))
        #expect(twice.agreed(now: 3) == .wait)
        var early = sending(5)
        #expect(early.verified() == .failed(.nonsense, tells: true))
        #expect(early.verified() == .wait)
        var refused = sending(5)
        #expect(refused.fail(.exists, tells: false) == .failed(.exists, tells: false))
        #expect(refused.fail(.aborted) == .wait)
        #expect(refused.agreed(now: 9) == .wait)
        #expect(refused.tick(now: 1_000_000) == .wait)
        var file = receiving(5)
        #expect(file.completed(sum: 7, now: 1) { 7 } == .failed(.sizeDiffers, tells: true))
        #expect(file.completed(sum: 7, now: 1) { 7 } == .wait)
        #expect(file.piece(offset: 0, count: 5) == .wait)
        #expect(file.bytes(5, now: 1) == nil)
    }

    // I8.3
    @Test("no answer, no progress, no last word: each wait has its end")
    func deadlines() {
        var unanswered = sending(5)
        #expect(unanswered.tick(now: 99) == .wait)
        #expect(unanswered.tick(now: 100) == .failed(.noAnswer, tells: true))
        var stalled = sending(25)
        _ = stalled.agreed(now: 50)
        stalled.pieceBegun(10)
        #expect(stalled.tick(now: 1_049) == .wait)
        _ = stalled.pieceSent(now: 1_049)
        stalled.pieceBegun(10)
        #expect(stalled.tick(now: 2_048) == .wait)
        #expect(stalled.tick(now: 2_049) == .failed(.stalled, tells: true))
        #expect(stalled.inFlight == 10)
        var silent = sending(0)
        _ = silent.agreed(now: 50)
        #expect(silent.tick(now: 1_050) == .failed(.noAnswer, tells: true))
        // A receiver that makes a file waits for its own disk, and no limit is for that.
        var making = TransferState(size: 5, limits: Self.limits, now: 0)
        #expect(making.tick(now: .max - 1) == .wait)
        #expect(making.agreed(now: 5_000) == .wait)
        #expect(making.tick(now: 5_999) == .wait)
        #expect(making.tick(now: 6_000) == .failed(.stalled, tells: true))
        var file = receiving(20)
        _ = file.piece(offset: 0, count: 20)
        _ = file.bytes(5, now: 1_000)
        #expect(file.tick(now: 1_999) == .wait)
        #expect(file.tick(now: 2_000) == .failed(.stalled, tells: true))
        // Promises are no bytes, and an empty piece is one that costs nothing.
        var promised = receiving(20)
        _ = promised.piece(offset: 0, count: 20)
        for _ in 0..<5 { #expect(promised.piece(offset: 20, count: 0) == .wait) }
        #expect(promised.tick(now: 1_000) == .failed(.stalled, tells: true))
    }

    // I8.3
    @Test("a piece may take longer than the limit, as long as some of it moves")
    func slowPiece() {
        var slow = sending(25)
        slow.acknowledged(1, now: 50)
        #expect(slow.tick(now: 99) == .wait)
        _ = slow.agreed(now: 99)
        slow.pieceBegun(10)
        for now in stride(from: UInt64(1_000), to: 10_000, by: 900) {
            slow.acknowledged(now, now: now)
            #expect(slow.tick(now: now + 999) == .wait)
        }
        slow.acknowledged(7, now: 10_000)
        slow.acknowledged(7, now: 10_500)
        #expect(!slow.isStuck(now: 11_000))
        #expect(slow.tick(now: 11_000) == .failed(.stalled, tells: true))
        #expect(slow.isStuck(now: 11_000))
        // Called off, and the piece still has to be sent to its end: that has the same limit.
        var off = sending(25)
        _ = off.agreed(now: 0)
        off.pieceBegun(10)
        #expect(off.fail(.aborted) == .failed(.aborted, tells: true))
        off.acknowledged(1, now: 900)
        #expect(off.tick(now: 1_900) == .wait && !off.isStuck(now: 1_899) && off.isStuck(now: 1_900))
        #expect(off.pieceSent(now: 1_900) == .wait && !off.isStuck(now: 9_000))
        // Nobody has agreed: what moves is not the file.
        var unanswered = sending(25)
        unanswered.acknowledged(1, now: 99)
        #expect(unanswered.tick(now: 100) == .failed(.noAnswer, tells: true))
    }

    // I8.8
    @Test("from its first 30 seconds on a transfer has to have the slowest rate, over the whole of it")
    func slowest() {
        // 100 bytes in a second of 1,000 units: the edge itself is fast enough.
        let limits = TransferLimits(
            answer: .seconds(1), stall: .seconds(10), slowest: 100, after: .seconds(2))
        let second: UInt64 = 1_000_000_000
        var file = receiving(10_000, limits, now: second)
        _ = file.piece(offset: 0, count: 10_000)
        _ = file.bytes(200, now: second)
        _ = file.wrote(200, now: second) { 0 }
        #expect(file.tick(now: 3 * second - 1) == .wait)
        #expect(file.tick(now: 3 * second) == .wait)
        #expect(file.tick(now: 3 * second + 1) == .failed(.tooSlow, tells: true))
        // A byte now and then puts a stall off, and nothing else.
        var trickle = receiving(10_000, limits, now: 0)
        _ = trickle.piece(offset: 0, count: 10_000)
        _ = trickle.bytes(1, now: 1)
        _ = trickle.wrote(1, now: 1) { 0 }
        #expect(trickle.tick(now: 2 * second - 1) == .wait)
        #expect(trickle.tick(now: 2 * second) == .failed(.tooSlow, tells: true))
        // As long as something waits for this side's disk, it is not the sender who is slow.
        var disk = receiving(10_000, limits, now: 0)
        _ = disk.piece(offset: 0, count: 10_000)
        _ = disk.bytes(5, now: 1)
        #expect(disk.tick(now: 3 * second) == .wait)
        _ = disk.wrote(5, now: 3 * second) { 0 }
        #expect(disk.tick(now: 3 * second) == .failed(.tooSlow, tells: true))
        // The sender counts what the other side's system has taken, also of a piece that is not through.
        func started() -> TransferState {
            var state = TransferState(size: 10_000, pieceLimit: 10_000, limits: limits, now: 0)
            state.acknowledged(70, now: 0)
            _ = state.agreed(now: 0)
            _ = state.summedUp(10_000, now: 0)
            state.pieceBegun(10_000)
            return state
        }
        var fast = started()
        fast.acknowledged(270, now: second)
        #expect(fast.tick(now: 2 * second) == .wait)
        var slow = started()
        slow.acknowledged(269, now: second)
        #expect(slow.tick(now: 2 * second) == .failed(.tooSlow, tells: true))
        // Its piece would take as long: nothing can be said until then.
        #expect(slow.isStuck(now: 2 * second))
        // A clock that has looked before the transfer began.
        var early = receiving(10, TransferLimits(slowest: 1, after: .nanoseconds(1)), now: 5)
        #expect(early.tick(now: 4) == .wait)
        // No rate at all is no limit.
        var any = receiving(10, TransferLimits(slowest: 0, after: .zero))
        #expect(any.tick(now: 1) == .wait)
    }

    // I8.1
    @Test("no choice makes a piece that is too long for one call, or a limit that is no time")
    func extremes() {
        var state = sending(1 << 40, piece: .max)
        _ = state.agreed(now: 1)
        guard case .piece(0, let count) = state.summedUp(1 << 32, now: 1) else {
            Issue.record("no piece")
            return
        }
        #expect(count < Socket.transmitLimit - 21 && count > 1 << 30)
        #expect(state.mayBeSummed < 1 << 33)
        #expect(sending(5, piece: .min).pieceLimit == 1)
        let limits = TransferLimits(answer: .seconds(Int64.max), stall: .seconds(-1))
        #expect(limits.answer == 1_000_000_000_000_000_000 && limits.stall == 0)
    }

    // I8.4
    @Test("a piece has to be the next one, and within the announced size")
    func pieces() {
        for (offset, count) in [(1, 5), (0, 21), (0, UInt64.max), (UInt64.max, 1)] as [(UInt64, UInt64)] {
            var file = receiving(20)
            #expect(file.piece(offset: offset, count: count) == .failed(.sizeDiffers, tells: true))
        }
        var file = receiving(20)
        #expect(file.piece(offset: 0, count: 12) == .wait)
        #expect(file.bytes(7, now: 1) == 0)
        #expect(file.bytes(5, now: 1) == 7)
        #expect(file.piece(offset: 12, count: 8) == .wait)
        #expect(file.bytes(8, now: 1) == 12)
        #expect(file.wrote(12, now: 2) { 7 } == .wait)
        #expect(file.completed(sum: 7, now: 1) { 7 } == .wait)
        #expect(file.wrote(8, now: 3) { 7 } == .whole)
        #expect(file.tick(now: .max) == .wait)
    }

    private func more(_ summed: inout UInt64, upTo limit: UInt64) -> Int {
        let count = min(7, limit - summed)
        summed += count
        return Int(count)
    }

    // I8.1, I8.3
    @Test("2,000 random walks: one piece at a time, each byte once, one end")
    func randomWalks() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2_000 {
            let size = UInt64.random(in: 0...100, using: &generator)
            var state = sending(size, piece: Int.random(in: 1...40, using: &generator))
            var next: UInt64 = 0
            var summed: UInt64 = 0
            var ends = 0
            var now: UInt64 = 0
            for _ in 0..<60 {
                now += UInt64.random(in: 0...30, using: &generator)
                let flying = state.inFlight
                let step: TransferState.Step =
                    switch Int.random(in: 0...9, using: &generator) {
                    case 0 where state.phase == .announced: state.agreed(now: now)
                    case 1...5 where flying > 0: state.pieceSent(now: now)
                    case 6...7 where summed < state.mayBeSummed:
                        state.summedUp(more(&summed, upTo: state.mayBeSummed), now: now)
                    case 8: state.tick(now: now)
                    case 9 where Int.random(in: 0...9, using: &generator) == 0: state.fail(.aborted)
                    default: .wait
                    }
                switch step {
                case .piece(let offset, let count):
                    #expect(state.inFlight == 0 && offset == next && ends == 0)
                    #expect(next + UInt64(count) <= summed)
                    state.pieceBegun(count)
                    next += UInt64(count)
                case .complete: #expect(next == size && state.inFlight == 0 && ends == 0)
                case .whole, .failed: ends += 1
                case .wait: break
                }
            }
            #expect(ends <= 1 && next <= size)
        }
    }
}
