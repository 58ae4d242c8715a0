import Kernel

/// From a pointer to a field back to the record around it: the field's offset is subtracted.
///
/// The offset is the compiler's, so the field may lie anywhere in the record. A plain cast is the special case of
/// offset 0, and nothing tells when the field is moved. (I4.1)
///
/// - Parameters:
///   - field: A pointer to that very field, inside a living record.
///   - path: A stored property of the record; one without an offset is a mistake in the program and traps.
///
/// Win32 counterpart: the macro `CONTAINING_RECORD`.
public func containingRecord<Record, Field>(
    of field: UnsafeMutablePointer<Field>, at path: KeyPath<Record, Field>
) -> UnsafeMutablePointer<Record> {
    guard let offset = MemoryLayout<Record>.offset(of: path) else {
        preconditionFailure("\(path) is not stored in the record")
    }
    return (UnsafeMutableRawPointer(field) - offset).assumingMemoryBound(to: Record.self)
}

/// The per-I/O context as C has it: plain memory, with the system's part somewhere inside.
///
/// The other way, a subclass of `Overlapped`, is `IOContext`. There the system's part is the beginning of the object
/// by the rules of the language, and the way back is a checked cast.
public struct IORecord {
    /// What the operation is for.
    public var purpose: Purpose
    /// A number that the program gave it.
    public var number: Int
    /// The part that the system knows, and the only part to which it brings a pointer back.
    public var overlapped: OverlappedPart

    /// Makes a record.
    public init(purpose: Purpose, number: Int) {
        self.purpose = purpose
        self.number = number
        overlapped = OverlappedPart()
    }
}

/// What the system knows of an `IORecord`. Win32 counterpart: the struct `OVERLAPPED`.
public struct OverlappedPart {
    /// Bytes transferred. Win32: `InternalHigh`.
    public var bytes = 0
    /// The system's error number. Win32: `Internal`, which has an NTSTATUS there.
    public var status: Int32 = 0
}

/// Brings a pointer to an `OverlappedPart` through a port, as Windows brings one to an `OVERLAPPED`.
///
/// The record has to live, and stay where it is, until the packet has come.
public final class Courier: Overlapped, @unchecked Sendable {
    /// Where the system's part lies.
    public let part: UnsafeMutablePointer<OverlappedPart>

    /// An idle operation for the record around `part`.
    public init(_ part: UnsafeMutablePointer<OverlappedPart>) { self.part = part }
}
