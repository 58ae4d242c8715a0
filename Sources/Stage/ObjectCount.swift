import Glibc

/// Counts the objects that Swift makes, in the whole process: instances, closures, boxes, the storage of arrays. The
/// runtime has a place for such a hook, meant for measuring.
public struct ObjectCount {
    private typealias Allocate =
        @convention(c) (UnsafeRawPointer?, Int, Int) -> UnsafeMutableRawPointer?
    // Written before the hook is in place, and not again.
    nonisolated(unsafe) private static var original: Allocate!
    private static let made = Counter()
    private let slot: UnsafeMutablePointer<Allocate>
    // While it is on, the runtime also takes a slower way for counting references, which does not know the short
    // strings that are no objects. So it is on for the round trips alone.
    private let swizzling: UnsafeMutablePointer<Bool>

    /// Begins to count. Ends the process as a failed test if the runtime has no place for the hook.
    public init() {
        guard let hook = dlsym(nil, "_swift_allocObject"),
            let flag = dlsym(
                nil, "_swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly")
        else { failInChild("this Swift runtime has no place for a hook") }
        slot = hook.assumingMemoryBound(to: Allocate.self)
        let present = slot.pointee
        if ObjectCount.original == nil { ObjectCount.original = present }
        ObjectCount.made.add(-ObjectCount.made.value)
        slot.pointee = { metadata, size, alignment in
            ObjectCount.made.add()
            return ObjectCount.original(metadata, size, alignment)
        }
        swizzling = flag.assumingMemoryBound(to: Bool.self)
        swizzling.pointee = true
        // It counts, or there would be nothing to believe.
        let proof = (0..<3).map { _ in Proof() }
        if ObjectCount.made.value < proof.count { failInChild("the hook counts nothing") }
        ObjectCount.made.add(-ObjectCount.made.value)
    }

    /// Ends the counting: how many there were.
    public func stop() -> Int {
        swizzling.pointee = false
        slot.pointee = ObjectCount.original
        return ObjectCount.made.value
    }

    private final class Proof {}
}
