import CompletionPorts
import Kernel

/// What the packets of a handle are for. Its address is the key under which the handle is associated: so a packet says itself
/// which object handles it, and no cast has to be tried.
///
/// The key does not keep the object: the operation under way does, or code that has closed the handle and seen everything come
/// back. On the port of a `StreamHub` every key is one of these, or 0 for an operation that is its own owner.
open class PacketOwner: @unchecked Sendable {
    /// For subclasses.
    public init() {}

    /// What its handles are associated under.
    public final var key: UInt { UInt(bitPattern: Unmanaged.passUnretained(self).toOpaque()) }

    /// A packet has come, to this worker.
    open func handle(_ packet: Packet, _ error: SystemError?) {}

    /// Gives a packet to its owner.
    @inline(__always)
    package static func handle(_ packet: Packet, _ error: SystemError?) {
        guard let address = UnsafeRawPointer(bitPattern: packet.key) else {
            (packet.operation as? HubTask)?.completed(packet.bytes, error)
            return
        }
        // Alive: the operation of the packet refers to it, and what it is in the middle of may end that.
        let owner = Unmanaged<PacketOwner>.fromOpaque(address).takeUnretainedValue()
        owner.handle(packet, error)
    }
}

/// An operation that is its own owner, such as a read of a file, on a handle that is associated under the key 0.
open class HubTask: Overlapped, @unchecked Sendable {
    /// The operation has completed, with so many bytes, or with an error. It is idle again.
    open func completed(_ bytes: Int, _ error: SystemError?) {}
}
