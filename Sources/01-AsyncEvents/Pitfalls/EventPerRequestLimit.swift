import AsyncEvents
import Kernel
import Stage

/// Sixty-five reads, each with an event of its own, and one thread that waits for them.
enum EventPerRequestLimit {
    static let pitfall = Pitfall(
        slug: "event-per-request-limit",
        title: "one wait covers at most 64 events, so the 65th request needs a second thread",
        broken: { try broken($0) }, fixed: { try fixed($0) })

    static let size = 65 * 16

    static func broken(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try Scratch(size: size)
        let loop = try BrokenEventLoop(stand.file(scratch.path), requests: 65)
        loop.run(rounds: 1_000)
        return Observation(
            happened: loop.completed == 65 && loop.handled == 0,
            lines: [
                "65 reads posted, 65 of them complete: \(loop.completed == 65)",
                "1000 rounds of waiting for any of them: \(loop.handled) handled, \(loop.refused) waits refused",
            ])
    }

    static func fixed(_ kind: DriverKind) throws -> Observation {
        let stand = try Stand(kind)
        defer { stand.end() }
        let scratch = try Scratch(size: size)
        let file = try stand.file(scratch.path)
        let most = try FileReader(file, inFlight: 64, blockSize: 16).read { _, _ in }
        var refusal: FileError?
        do throws(FileError) { _ = try FileReader(file, inFlight: 65, blockSize: 16) } catch {
            refusal = error
        }
        return Observation(
            happened: most != Int64(size) || refusal != .refused(.tooManyEvents(65)),
            lines: [
                "64 in flight: \(most) bytes read",
                "65 in flight, before anything is posted: \(refusal.map { "\($0)" } ?? "accepted")",
            ])
    }
}

/// An event for each request, and a loop that takes a refused wait for one in which nothing happened.
final class BrokenEventLoop {
    private let requests: [Overlapped]
    private let events: [Event]
    private let memory: Memory
    private(set) var handled = 0
    private(set) var refused = 0

    init(_ file: File, requests count: Int) throws {
        events = (0..<count).map { _ in Event(.automatic) }
        requests = events.map { Stand.operation($0) }
        memory = Memory(count * 16)
        for (index, request) in requests.enumerated() {
            request.offset = Int64(index * 16)
            let part = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[index * 16..<index * 16 + 16])
            try file.read(request, into: part)
        }
    }

    var completed: Int { requests.count { $0.wait(until: .after(Gate.patience)) } }

    func run(rounds: Int) {
        for _ in 0..<rounds {
            switch try? Event.waitForAny(events) {
            case .signalled: handled += 1
            case nil: refused += 1
            default: break
            }
        }
    }
}
