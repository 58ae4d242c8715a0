/// A duration as a text for people, with a unit that suits its size: `12.3 µs`.
public func readable(_ duration: Duration) -> String {
    let nanoseconds = duration / .nanoseconds(1)
    for (unit, size) in [("s", 1e9), ("ms", 1e6), ("µs", 1e3)] where abs(nanoseconds) >= size {
        return readable(nanoseconds / size) + " " + unit
    }
    return "\(Int(nanoseconds)) ns"
}

/// A number as a text for people, with three digits that matter, or all of a larger one, in groups: `1.25`, `47.3`,
/// `120,345`.
public func readable(_ number: Double) -> String {
    guard number.isFinite, abs(number) < 1e15 else { return "\(number)" }
    let decimals = abs(number) < 9.995 ? 2 : abs(number) < 99.95 ? 1 : 0
    let scale = [1.0, 10, 100][decimals]
    let scaled = Int((abs(number) * scale).rounded())
    let (whole, rest) = scaled.quotientAndRemainder(dividingBy: Int(scale))
    let digits = String(rest)
    let fraction = decimals == 0 ? "" : "." + String(repeating: "0", count: decimals - digits.count) + digits
    return (number < 0 && scaled != 0 ? "-" : "") + readable(whole) + fraction
}

/// A whole number as a text for people, in groups of three: `120,345`.
public func readable(_ number: Int) -> String {
    var text = ""
    for (index, digit) in String(number.magnitude).reversed().enumerated() {
        if index > 0 && index % 3 == 0 { text.append(",") }
        text.append(digit)
    }
    return (number < 0 ? "-" : "") + String(text.reversed())
}

/// A number with the word for what is counted: `1 client`, `1,000 clients`.
/// - Parameter plural: the word for several, if it is not the first one with an *s*.
public func counted(_ number: Int, _ word: String, _ plural: String? = nil) -> String {
    "\(readable(number)) \(number == 1 ? word : plural ?? word + "s")"
}
