/// Which byte of a number comes first on the wire.
public enum ByteOrder: Sendable, CaseIterable {
    /// The most significant one: network order, which is what most written protocols say.
    case bigEndian
    /// The least significant one: how this machine and every Windows machine keep numbers in memory, and so what goes
    /// out when a program sends its memory as it is.
    case littleEndian
}

/// Fields of a frame, read with their bounds checked. A frame is a stranger's word: no offset in it is trusted.
extension RawSpan {
    /// The number at an offset.
    ///
    /// - Throws: `outOfBounds` when it is not wholly within these bytes.
    public func integer<Number: FixedWidthInteger & BitwiseCopyable>(
        _ type: Number.Type, at offset: Int, _ order: ByteOrder
    ) throws(FrameError) -> Number {
        try requireBytes(MemoryLayout<Number>.size, at: offset)
        // Within bounds, and any bytes are a number.
        let number = unsafeLoadUnaligned(fromByteOffset: offset, as: Number.self)
        return order == .bigEndian ? Number(bigEndian: number) : Number(littleEndian: number)
    }

    /// The text that a number of bytes at an offset are.
    ///
    /// - Throws: `outOfBounds` when they are not all there, `notUTF8` when they are no text.
    public func text(at offset: Int, bytes: Int) throws(FrameError) -> String {
        try requireBytes(bytes, at: offset)
        let text = extracting(offset..<offset + bytes).withUnsafeBytes {
            String(validating: $0, as: UTF8.self)
        }
        guard let text else { throw FrameError(.notUTF8, at: offset) }
        return text
    }

    /// Makes sure that so many bytes are there at an offset.
    ///
    /// - Throws: `outOfBounds` when they are not.
    public func requireBytes(_ count: Int, at offset: Int) throws(FrameError) {
        // Subtracted, not added: the sum of two strange numbers may overflow.
        guard offset >= 0, count >= 0, offset <= byteCount, count <= byteCount - offset else {
            throw FrameError(
                .outOfBounds(wanted: count, available: max(0, byteCount - max(0, offset))), at: offset)
        }
    }

    /// These bytes for people: text where they are text, and everything else as `\xNN`. Exactly as many as there are:
    /// no terminator is looked for. (I6.6)
    ///
    /// Safe to print, wherever they come from: control characters, which could steer a terminal, are shown, not obeyed.
    public var printable: String {
        var shown = ""
        withUnsafeBytes { bytes in
            var rest = bytes[...]
            var decoder = Unicode.UTF8.ForwardParser()
            var source = bytes.makeIterator()
            parsing: while true {
                let length: Int
                switch decoder.parseScalar(from: &source) {
                case .valid(let encoded):
                    let scalar = Unicode.UTF8.decode(encoded)
                    length = encoded.count
                    if scalar.isPrintable {
                        shown.unicodeScalars.append(scalar)
                    } else {
                        for byte in rest.prefix(length) { shown += hexadecimal(byte) }
                    }
                case .error(let count):
                    length = count
                    for byte in rest.prefix(length) { shown += hexadecimal(byte) }
                case .emptyInput: break parsing
                }
                rest = rest.dropFirst(length)
            }
        }
        return shown
    }

    private func hexadecimal(_ byte: UInt8) -> String {
        let digits = String(byte, radix: 16, uppercase: true)
        return "\\x" + (digits.count < 2 ? "0" : "") + digits
    }
}

extension Unicode.Scalar {
    fileprivate var isPrintable: Bool {
        switch properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .unassigned, .privateUse, .surrogate:
            false
        default: self != "\\"
        }
    }
}
