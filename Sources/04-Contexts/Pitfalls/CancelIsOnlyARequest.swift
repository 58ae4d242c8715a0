import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: what was cancelled is taken for finished, and its context goes to the next connection.
struct BrokenCanceller {
    func giveUp(_ socket: Socket, _ context: IOContext, _ list: inout BrokenFreeList<IOContext>) {
        socket.cancel(context)
        list.giveBack(context)
    }
}

/// Memory is freed right after the cancel, while the operation still owns it.
public enum CancelIsOnlyARequest {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "cancel-is-only-a-request",
        title: "a cancelled operation's context is given to the next connection before its packet has come",
        broken: { driver in
            let (first, second) = (try Pair(), try Pair())
            let port = try CompletionPort.on(driver)
            try port.associate(first.server, key: 1)
            try port.associate(second.server, key: 2)
            var list = BrokenFreeList<IOContext>()
            let context = IOContext()
            try context.receive(on: first.server)
            BrokenCanceller().giveUp(first.server, context, &list)
            // The next connection takes it, and finds out whether it is free.
            let taken = list.take()
            var refusal: SystemError?
            do throws(SystemError) { try taken?.receive(on: second.server) } catch { refusal = error }
            let packet = try port.next()
            second.server.close()
            port.close()
            return Observation(
                happened: taken === packet.operation && packet.key == 1 && refusal?.code == EALREADY,
                lines: [
                    "connection 1 cancelled a receive; connection 2 got the context at once",
                    "its own receive was not posted: \(refusal?.description ?? "it was")",
                    "then a packet came with connection 2's context and key \(packet.key): "
                        + "\(packet.error?.description ?? "success")",
                ])
        },
        fixed: { driver in
            let stand = try Stand(driver)
            let (first, second) = (try Pair(), try Pair())
            let connection = try stand.table.admit(first.server)
            connection.close()
            let beforePacket = stand.table.contexts.counters
            try stand.table.admit(second.server)
            let both = stand.table.contexts.counters
            try stand.turn()
            let afterPacket = stand.table.contexts.counters
            return Observation(
                happened: beforePacket.inUse != 1 || both.made != 2 || afterPacket.inUse != 1
                    || afterPacket.free != 1 || !stand.finish(),
                lines: [
                    "connection 1 was closed: contexts in use \(beforePacket.inUse), free \(beforePacket.free)",
                    "connection 2 got another one: made \(both.made)",
                    "when the packet had come: in use \(afterPacket.inUse), free \(afterPacket.free)",
                ])
        })
}
