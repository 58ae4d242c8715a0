import CompletionPorts
import Contexts
import Kernel
import Stage

/// ⚠︎ Broken on purpose: takes the whole buffer for the message, up to the first zero byte.
struct BrokenMessage {
    func text(_ buffer: UnsafeRawBufferPointer) -> String {
        String(decoding: buffer.prefix { $0 != 0 }, as: UTF8.self)
    }
}

/// A recycled buffer still holds what the last client said.
public enum FreeListLeaksData {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "free-list-leaks-data",
        title: "a recycled buffer shows one client the end of what another has said",
        broken: { driver in
            try scenario(driver) { context, _ in BrokenMessage().text(context.contents(context.capacity)) }
        },
        fixed: { driver in
            try scenario(driver) { context, bytes in String(decoding: context.contents(bytes), as: UTF8.self)
            }
        })

    /// Two clients, one after the other, through one context.
    private static func scenario(
        _ driver: DriverKind, read: (IOContext, Int) -> String
    ) throws -> Observation {
        let list = FreeList<IOContext>(maximumFree: 1) {
            let context = IOContext()
            _ = [UInt8](repeating: 0, count: context.capacity).withUnsafeBytes { context.fill($0) }
            return context
        }
        var heard: [String] = []
        for words in ["my password is swordfish", "hello"] {
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            try port.associate(pair.server, key: 1)
            guard let context = list.take() else { break }
            try context.receive(on: pair.server)
            try pair.client.say(words)
            let packet = try port.next()
            heard.append(read(context, packet.bytes))
            list.giveBack(context)
            port.close()
        }
        return Observation(
            happened: heard.last != "hello",
            lines: [
                "contexts made: \(list.counters.made), for two clients in turn",
                "the first client's message, as read: \"\(heard[0])\"",
                "the second client said \"hello\", as read: \"\(heard[1])\"",
            ])
    }
}
