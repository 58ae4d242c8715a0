/// A number with a fixed count of decimals, without Foundation.
func fixed(_ value: Double, _ decimals: Int) -> String {
    var scale = 1.0
    for _ in 0..<decimals { scale *= 10 }
    let scaled = Int((abs(value) * scale).rounded())
    var digits = String(scaled)
    while digits.count <= decimals { digits = "0" + digits }
    let sign = value < 0 && scaled != 0 ? "-" : ""
    return decimals == 0 ? sign + digits : sign + digits.dropLast(decimals) + "." + digits.suffix(decimals)
}

/// A time with a unit that suits its size: `12.3 µs`.
func readable(_ nanoseconds: Int) -> String {
    let unit = unit(for: nanoseconds)
    let value = Double(nanoseconds) / Double(unit.size)
    return unit.size == 1 ? "\(nanoseconds) ns" : fixed(value, value < 10 ? 2 : 1) + " " + unit.name
}

private func unit(for nanoseconds: Int) -> (name: String, size: Int) {
    switch nanoseconds {
    case ..<1_000: ("ns", 1)
    case ..<1_000_000: ("µs", 1_000)
    case ..<1_000_000_000: ("ms", 1_000_000)
    default: ("s", 1_000_000_000)
    }
}

/// The ticks of a time axis: round times from 0 on, at most `limit` of them, with their texts.
func ticks(for length: Int, limit: Int) -> [(time: Int, text: String)] {
    var step = 1
    search: while true {
        for factor in [1, 2, 5] where length / (step * factor) < limit {
            step *= factor
            break search
        }
        step *= 10
    }
    let unit = unit(for: length)
    return stride(from: 0, through: length, by: step).map { time in
        // At most two decimals are ever needed: a step is at least a twentieth of its length.
        var value = fixed(Double(time) / Double(unit.size), 2)
        while value.last == "0" { value.removeLast() }
        if value.last == "." { value.removeLast() }
        return (time, time == 0 ? "0" : "\(value) \(unit.name)")
    }
}

/// A name in which every run of digits is long enough to be compared as text: `worker 2` before `worker 10`.
func sortingKey(_ name: String) -> String {
    var key = ""
    var digits = ""
    for character in name + " " {
        if character.isASCII && character.isNumber {
            digits.append(character)
            continue
        }
        if !digits.isEmpty { key += String(repeating: "0", count: max(0, 20 - digits.count)) + digits }
        digits = ""
        key.append(character)
    }
    return key
}

/// A text for a terminal: what would move the cursor or change colours becomes a question mark.
func harmless(_ text: String) -> String {
    String(
        text.map {
            $0.unicodeScalars.contains { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) } ? "?" : $0
        })
}

/// A text for XML, in content and in attributes. XML has no way to write most control characters.
func escapedForXML(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "&": result += "&amp;"
        case "<": result += "&lt;"
        case ">": result += "&gt;"
        case "\"": result += "&quot;"
        case "'": result += "&apos;"
        case "\n", "\t": result += " "
        case _ where scalar.value < 0x20 || (0xfffe...0xffff).contains(scalar.value): result += "?"
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}

/// A text as a JSON string, with its quotation marks.
func quotedForJSON(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case _ where scalar.value < 0x20:
            let hexadecimal = String(scalar.value, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - hexadecimal.count) + hexadecimal
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}
