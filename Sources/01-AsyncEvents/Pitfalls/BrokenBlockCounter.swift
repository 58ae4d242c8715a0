import AsyncEvents
import Kernel

/// Reads a file with four requests in flight, as a published example does it: each completed request counts
/// for a whole block, and each asks for a whole block, wherever the file ends.
struct BrokenBlockCounter {
    let file: File
    let blockSize = ShortLastRead.blockSize

    init(_ file: File) { self.file = file }

    struct Outcome {
        /// Bytes that the loop believes to have read.
        var counted = 0
        /// Bytes that were written past the end of the memory; here a guard zone took them.
        var beyond = 0
        var completions = 0
        /// It would have gone on for ever.
        var gaveUp = false
    }

    func read(change: () throws -> Void) throws -> Outcome {
        var outcome = Outcome()
        let size = Int(try file.size)
        try change()
        let patience = 1_000
        let guardZone = (patience + 8) * blockSize
        let memory = Memory(size + guardZone)
        let requests = (0..<4).map { _ in Stand.operation(Event(.automatic, isSet: true)) }
        let events = requests.compactMap { $0.event as? Event }

        var toProcess = size
        var nextOffset = 0
        while toProcess > 0 {
            guard case .signalled(let index) = try Event.waitForAny(events) else { continue }
            let request = requests[index]
            if let bytes = try? request.result(), bytes > 0 { toProcess -= blockSize }
            outcome.completions += 1
            if outcome.completions > patience {
                outcome.gaveUp = true
                break
            }
            if toProcess > 0 {
                request.offset = Int64(nextOffset)
                let block = nextOffset..<nextOffset + blockSize
                try file.read(request, into: UnsafeMutableRawBufferPointer(rebasing: memory.bytes[block]))
                nextOffset += blockSize
            }
        }
        for request in requests { _ = request.wait() }
        outcome.counted = size - toProcess
        outcome.beyond = memory.bytes[size...].count { $0 != 0 }
        return outcome
    }
}
