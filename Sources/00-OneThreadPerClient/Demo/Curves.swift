import Glibc
import OneThreadPerClient

/// Threads and memory over the number of clients, as a picture. Clients and threads grow by factors of ten.
struct Curves {
    private let costs: [Cost]
    private let steps: [Int]
    private static let (width, height) = (900, 420)
    private static let (top, bottom) = (110.0, 350.0)

    init(_ costs: [Cost], _ steps: [Int]) {
        // A client without an answer costs nothing: the server that serves one after the other has no curve.
        self.costs = costs.filter { $0.kind != .turn }
        self.steps = steps
    }

    var svg: String {
        let most = Double(steps.last!) * 2
        let threads = panel(
            left: 70, title: "Threads", ticks: [1, 10, 100, 1_000].filter { Double($0) <= most },
            height: { log(max(Double($0.threads), 1)) / log(most) },
            tickHeight: { log(Double($0)) / log(most) })
        let mebibytes = (costs.flatMap(\.figures).map(\.resident).max() ?? 0) / 1_048_576 + 1
        let highest = (mebibytes + 9) / 10 * 10
        let memory = panel(
            left: 540, title: "Resident memory, MiB", ticks: (0...5).map { $0 * highest / 5 },
            height: { Double($0.resident) / 1_048_576 / Double(highest) },
            tickHeight: { Double($0) / Double(highest) })
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(Self.height)" \
            width="\(Self.width)" height="\(Self.height)" role="img" aria-labelledby="title">
            <title id="title">What clients cost, from 1 to \(steps.last!): a thread each, or one thread for all</title>
            <style>
            text{font-family:ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-size:13px;fill:#24292f}
            .title{font-size:18px;font-weight:600}.small{font-size:12px;fill:#57606a}
            .page{fill:#ffffff}.grid{stroke:#d8dee4;fill:none}.curve{fill:none;stroke-width:2.5}
            .thread{stroke:#d1495b}.polling{stroke:#8a8f98;stroke-dasharray:2 4}.readiness{stroke:#3066be}
            .completion{stroke:#8457b8;stroke-dasharray:8 4}.point{fill:#ffffff;stroke-width:2}
            @media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9da7b3}
            .page,.point{fill:#0d1117}.grid{stroke:#30363d}.readiness{stroke:#79a6ff}.completion{stroke:#c29bf0}.thread{stroke:#ff7b8a}}
            </style>
            <rect class="page" width="\(Self.width)" height="\(Self.height)" rx="8"/>
            <text class="title" x="24" y="36">What clients cost</text>
            \(legend())\(threads)\(memory)\(remark(most: most))</svg>

            """
    }

    /// The servers with one thread for all lie on each other: the picture says so.
    private func remark(most: Double) -> String {
        guard let threads = costs.first(where: { $0.kind == .readiness })?.figures.last?.threads else {
            return ""
        }
        let y = Self.bottom - (Self.bottom - Self.top) * log(max(Double(threads), 1)) / log(most) - 10
        return """
            <text class="small" x="384" y="\(fixed(y, 1))" text-anchor="end">\
            polling, readiness, completion: \(threads) threads</text>

            """
    }

    private func legend() -> String {
        let words: [ServerKind: String] = [
            .thread: "a thread each", .polling: "polling", .readiness: "readiness", .completion: "completion",
        ]
        var x = 24
        return costs.map { cost in
            defer { x += 66 + 8 * (words[cost.kind] ?? cost.kind.rawValue).count }
            return """
                <path class="curve \(cost.kind.rawValue)" d="M\(x) 60h28"/>\
                <text x="\(x + 36)" y="64">\(words[cost.kind] ?? cost.kind.rawValue)</text>

                """
        }.joined()
    }

    /// - Parameters:
    ///   - height: where a measurement stands: 0 at the bottom of the panel, 1 at its top.
    ///   - tickHeight: where a number of the axis stands.
    private func panel(
        left: Double, title: String, ticks: [Int], height: (MeasuredServer.Figures) -> Double,
        tickHeight: (Int) -> Double
    ) -> String {
        let right = left + 320
        func x(_ clients: Int) -> Double {
            steps.count < 2 ? left : left + (right - left) * log(Double(clients)) / log(Double(steps.last!))
        }
        func y(_ height: Double) -> String { fixed(Self.bottom - (Self.bottom - Self.top) * height, 1) }
        var text = "<text x=\"\(left)\" y=\"\(Self.top - 14)\">\(title)</text>\n"
        for tick in ticks {
            let place = y(tickHeight(tick))
            text += "<path class=\"grid\" d=\"M\(left) \(place)H\(right)\"/>"
            text +=
                "<text class=\"small\" x=\"\(left - 8)\" y=\"\(place)\" dy=\"4\" text-anchor=\"end\">\(tick)</text>\n"
        }
        for step in steps {
            text += "<text class=\"small\" x=\"\(fixed(x(step), 1))\" y=\"\(Self.bottom + 20)\" "
            text += "text-anchor=\"middle\">\(step)</text>\n"
        }
        text +=
            "<text class=\"small\" x=\"\(right)\" y=\"\(Self.bottom + 40)\" text-anchor=\"end\">clients</text>\n"
        for cost in costs {
            let points = zip(steps, cost.figures).map { (fixed(x($0), 1), y(height($1))) }
            let path = points.map { "\($0) \($1)" }.joined(separator: "L")
            text += "<path class=\"curve \(cost.kind.rawValue)\" d=\"M\(path)\"/>"
            text +=
                points.map {
                    "<circle class=\"point \(cost.kind.rawValue)\" cx=\"\($0)\" cy=\"\($1)\" r=\"3\"/>"
                }.joined() + "\n"
        }
        return text
    }
}
