import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: a plain cast from the system's part to the record around it. It held for as long as the part
/// was the first field.
struct BrokenCast {
    func record(of part: UnsafeMutablePointer<OverlappedPart>) -> UnsafeMutablePointer<IORecord> {
        UnsafeMutableRawPointer(part).assumingMemoryBound(to: IORecord.self)
    }
}

/// The cast from the system's part to the context is right at offset 0 only.
public enum ContextNotFirstField {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "context-not-first-field",
        title: "the cast from the system's part to the context is right at offset 0 only",
        broken: { driver in try scenario(driver) { BrokenCast().record(of: $0) } },
        fixed: { driver in
            let byOffset = try scenario(driver) { containingRecord(of: $0, at: \IORecord.overlapped) }
            let subclass = try bySubclass(driver)
            return Observation(
                happened: byOffset.happened || subclass.happened, lines: byOffset.lines + subclass.lines)
        })

    private static func scenario(
        _ driver: DriverKind,
        find: (UnsafeMutablePointer<OverlappedPart>) -> UnsafeMutablePointer<IORecord>
    ) throws -> Observation {
        // Room for two records, all zero: what the wrong cast reads is at least this program's own memory.
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: 2 * MemoryLayout<IORecord>.stride, alignment: MemoryLayout<IORecord>.alignment)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        let record = memory.baseAddress!.bindMemory(to: IORecord.self, capacity: 1)
        record.initialize(to: IORecord(purpose: .receive, number: 4711))
        let offset = MemoryLayout<IORecord>.offset(of: \IORecord.overlapped)!
        // What the system knows is the address of its own part.
        let part = (memory.baseAddress! + offset).assumingMemoryBound(to: OverlappedPart.self)

        let pair = try Pair()
        let port = try CompletionPort.on(driver)
        try port.associate(pair.server, key: 1)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16, alignment: 1)
        defer { buffer.deallocate() }
        try pair.server.receive(Courier(part), into: buffer)
        try pair.client.say("abc")
        let packet = try port.next()
        port.close()
        guard let courier = packet.operation as? Courier else {
            throw SystemError(EINVAL, attempted: "find the courier")
        }
        let found = find(courier.part).pointee
        return Observation(
            happened: found.number != 4711 || found.purpose != .receive,
            lines: [
                "the system's part lies \(offset) bytes into the record of a receive, number 4711",
                "found by way of it: a \(found.purpose), number \(found.number)",
            ])
    }

    private static func bySubclass(_ driver: DriverKind) throws -> Observation {
        let pair = try Pair()
        let port = try CompletionPort.on(driver)
        try port.associate(pair.server, key: 1)
        let context = IOContext()
        try context.receive(on: pair.server)
        try pair.client.say("abc")
        let packet = try port.next()
        port.close()
        let found = packet.operation as? IOContext
        return Observation(
            happened: found !== context || found?.purpose != .receive,
            lines: [
                "as a subclass: the packet's operation is the context itself, a \(found?.purpose ?? .none)"
            ])
    }
}
