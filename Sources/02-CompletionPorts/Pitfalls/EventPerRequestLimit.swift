import CompletionPorts
import Glibc
import Kernel
import Stage

/// One wait covers 64 events. A port has no such number.
///
/// The wait that fails at 65 is in chapter 01; here is what takes its place.
public enum EventPerRequestLimit {
    /// Requests that are pending at once.
    public static let requests = 10_000
    private static let connections = 50

    /// One thread, one port, and more requests than 156 waits for 64 events could cover.
    public static func fixed(_ driver: DriverKind) throws -> Observation {
        let port = try CompletionPort.on(driver)
        let pairs = try Pair.several(connections)
        let each = requests / connections
        var pending: [Request] = []
        for (key, pair) in pairs.enumerated() {
            try port.associate(pair.server, key: UInt(key))
            for _ in 0..<each {
                // A byte each, so that every request gets its share.
                let request = Request(pending.count, room: 1)
                pending.append(request)
                try pair.server.receive(request, into: request.memory)
            }
        }
        let atOnce = pending.filter(\.isPending).count
        let text = String((0..<each).map { Character(Unicode.Scalar(UInt8(97 + $0 % 26))) })
        for pair in pairs { try pair.client.say(text) }
        var seen = [Int](repeating: 0, count: requests)
        var wrong = 0
        for _ in 0..<requests {
            let packet = try port.next()
            guard let request = packet.operation as? Request else { continue }
            seen[request.number] += 1
            let isRight =
                packet.errorCode == 0 && packet.bytes == 1 && packet.key == UInt(request.number / each)
                && request.memory[0] == UInt8(97 + request.number % each % 26)
            if !isRight { wrong += 1 }
        }
        let isOver: Bool
        if case .timedOut = port.dequeue(timeout: .zero) { isOver = true } else { isOver = false }
        for pair in pairs { pair.server.close() }
        port.close()
        let once = seen.filter { $0 == 1 }.count
        return Observation(
            happened: atOnce != requests || once != requests || wrong > 0 || !isOver,
            lines: [
                "requests pending at once on one port: \(atOnce)",
                "completed exactly once: \(once); with the wrong key, length or byte: \(wrong)",
            ])
    }
}
