import CompletionPorts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a port that takes a handle twice, and believes what it was told last.
final class BrokenRegistry: CompletionTarget, @unchecked Sendable {
    private let driver: Driver
    // One thread uses it.
    private var keys: [UInt: UInt] = [:]
    private var completed = CompletionList()

    init(_ driver: Driver) { self.driver = driver }

    func associate(_ handle: Handle, key: UInt) throws(SystemError) {
        let identity = UInt(bitPattern: ObjectIdentifier(handle))
        if keys[identity] == nil { try handle.associate(with: self, key: identity, driver: driver) }
        // The handle is known already? Then this is its new key, for what is pending too.
        keys[identity] = key
    }

    /// The next packet's key and operation.
    func next() throws(SystemError) -> (key: UInt, operation: Overlapped) {
        let deadline = Deadline.after(Gate.patience)
        while completed.isEmpty {
            if deadline.hasPassed { throw SystemError(ETIMEDOUT, attempted: "wait for a packet") }
            driver.poll(for: self, until: deadline, &completed)
        }
        let operation = completed.popFirst()!.takeRetainedValue()
        operation.wasDequeued()
        return (keys[operation.completionKey] ?? 0, operation)
    }

    override func take(_ more: inout CompletionList) {
        while let operation = more.popFirst() { operation.release() }
    }
}

/// A handle is associated a second time, and its packets arrive under somebody else's key.
public enum AssociateTwice {
    private static let alice: UInt = 1
    private static let bob: UInt = 2

    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "associate-twice",
        title: "a handle is associated a second time, and its packets arrive under somebody else's key",
        broken: { driver in
            let pair = try Pair()
            let registry = BrokenRegistry(try Driver.make(driver))
            let request = Request()
            try registry.associate(pair.server, key: alice)
            try pair.server.receive(request, into: request.memory)
            // Bob's socket was meant. Nothing says so.
            try registry.associate(pair.server, key: bob)
            try pair.client.say("alice's secret")
            let (key, operation) = try registry.next()
            pair.server.close()
            return observation(key, operation, refusal: "none")
        },
        fixed: { driver in
            let pair = try Pair()
            let port = try CompletionPort.on(driver)
            let request = Request()
            try port.associate(pair.server, key: alice)
            try pair.server.receive(request, into: request.memory)
            var refusal = "none"
            do throws(SystemError) {
                try port.associate(pair.server, key: bob)
            } catch {
                refusal = "\(error)"
            }
            try pair.client.say("alice's secret")
            let packet = try port.next()
            pair.server.close()
            port.close()
            return observation(packet.key, packet.operation, refusal: refusal)
        })

    private static func observation(_ key: UInt, _ operation: Overlapped?, refusal: String) -> Observation {
        let text = (operation as? Request)?.text(operation?.bytes ?? 0) ?? ""
        return Observation(
            happened: key == bob,
            lines: [
                "the second association was refused with: \(refusal)",
                "\"\(text)\" was handed to \(key == bob ? "bob" : "alice")",
            ])
    }
}
