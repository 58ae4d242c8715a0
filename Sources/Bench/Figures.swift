import Glibc
import Stage

/// The figures of one measurement, over all of its runs.
struct Series {
    let name: String
    let unit: String
    var values: [Double] = []

    var median: Double { Series.median(values) }

    /// How far the middle half of the runs lies apart, in parts of the median.
    var spread: Double {
        let sorted = values.sorted()
        guard sorted.count > 2, median != 0 else { return 0 }
        return (sorted[sorted.count * 3 / 4] - sorted[sorted.count / 4]) / median
    }

    static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        guard let middle = sorted.isEmpty ? nil : sorted.count / 2 else { return 0 }
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}

/// A comparison: one measurement in parts of another, run by run, since a machine's speed drifts between runs.
struct Ratio {
    let name: String
    let of: String
    let to: String
    /// What it is to reach; nil where it is only told.
    let target: Target?

    enum Target {
        case atLeast(Double)
        case atMost(Double)

        func isMet(by value: Double) -> Bool {
            switch self {
            case .atLeast(let bound): value >= bound
            case .atMost(let bound): value <= bound
            }
        }

        var text: String {
            switch self {
            case .atLeast(let bound): "at least \(format(bound))"
            case .atMost(let bound): "at most \(format(bound))"
            }
        }
    }
}

/// Everything that one run of the bench has measured.
struct Figures {
    private(set) var series: [String: Series] = [:]
    private var order: [String] = []
    private(set) var ratios: [Ratio] = []

    mutating func add(_ name: String, _ unit: String, _ value: Double) {
        if series[name] == nil {
            series[name] = Series(name: name, unit: unit)
            order.append(name)
        }
        series[name]?.values.append(value)
    }

    mutating func compare(_ of: String, to: String, _ target: Ratio.Target? = nil, as name: String? = nil) {
        ratios.append(Ratio(name: name ?? "\(of) / \(to)", of: of, to: to, target: target))
    }

    /// The median of the ratios of the runs; nil when one of the two was not measured.
    func value(of ratio: Ratio) -> Double? {
        guard let a = series[ratio.of]?.values, let b = series[ratio.to]?.values, !a.isEmpty,
            a.count == b.count
        else { return nil }
        return Series.median(zip(a, b).map { $1 == 0 ? 0 : $0 / $1 })
    }

    func rows() -> [[String]] {
        order.compactMap { series[$0] }.map {
            [$0.name, format($0.median), $0.unit, "±\(Int(($0.spread * 50).rounded())) %"]
        }
    }

    func ratioRows() -> [[String]] {
        ratios.compactMap { ratio in
            guard let value = value(of: ratio) else { return nil }
            guard let target = ratio.target else { return [ratio.name, format(value), "", ""] }
            return [ratio.name, format(value), target.text, target.isMet(by: value) ? "reached" : "MISSED"]
        }
    }

    /// All figures as a JSON document. Names and units are the bench's own and need no escaping.
    func json() -> String {
        let measured = order.compactMap { series[$0] }.map { series in
            let values = series.values.map { "\($0)" }.joined(separator: ", ")
            return
                "    {\"name\": \"\(series.name)\", \"unit\": \"\(series.unit)\", \"median\": \(series.median), "
                + "\"spread\": \(series.spread), \"values\": [\(values)]}"
        }
        let compared = ratios.compactMap { ratio in
            value(of: ratio).map { "    {\"name\": \"\(ratio.name)\", \"median\": \($0)}" }
        }
        return "{\n  \"figures\": [\n\(measured.joined(separator: ",\n"))\n  ],\n"
            + "  \"ratios\": [\n\(compared.joined(separator: ",\n"))\n  ]\n}\n"
    }
}

/// A number with three digits that matter, and its thousands apart.
func format(_ value: Double) -> String {
    if value == 0 { return "0" }
    let magnitude = value.magnitude
    let digits = magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : 3
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let rounded = Int((value * scale).rounded())
    var whole = String(rounded / Int(scale))
    if whole.count > 4 {
        var grouped = ""
        for (index, digit) in whole.enumerated() {
            if index > 0, (whole.count - index) % 3 == 0 { grouped += "," }
            grouped.append(digit)
        }
        whole = grouped
    }
    guard digits > 0 else { return whole }
    let rest = String(rounded % Int(scale))
    return whole + "." + String(repeating: "0", count: digits - rest.count) + rest
}
