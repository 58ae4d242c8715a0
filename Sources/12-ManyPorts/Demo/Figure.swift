/// Clients on their ports: as placed, and after each plan, with the numbers of a run.
struct Figure {
    struct Port {
        var busy = 0
        var idle = 0
        /// Of the packets, in parts of a hundred.
        var share = 0
    }
    /// As placed, then as moved; once for each plan.
    var panels: [(title: String, ports: [Port])] = []

    func svg() -> String {
        // What was placed is the same for each plan.
        let shown = panels.enumerated().filter { $0.offset == 0 || $0.element.title != "as placed" }.map(
            \.element)
        let ports = shown.map(\.ports.count).max() ?? 0
        let (width, rowHeight) = (24 + 312 * shown.count, 118)
        let height = 128 + rowHeight * ports
        var body = ""
        for (index, panel) in shown.enumerated() {
            let x = 24 + 312 * index
            body +=
                "<text class=\"head\" x=\"\(x)\" y=\"44\">\(Figure.titles[panel.title] ?? panel.title)</text>\n"
            for (number, port) in panel.ports.enumerated() {
                let y = 62 + rowHeight * number
                body += "<rect class=\"box\" x=\"\(x)\" y=\"\(y)\" width=\"288\" height=\"102\" rx=\"8\"/>\n"
                body += "<text x=\"\(x + 12)\" y=\"\(y + 22)\">port \(number)</text>\n"
                body +=
                    "<text class=\"small\" x=\"\(x + 86)\" y=\"\(y + 22)\">\(port.busy) busy, \(port.idle) idle</text>\n"
                for client in 0..<port.busy {
                    body +=
                        "<rect class=\"handled\" x=\"\(x + 12 + 18 * client)\" y=\"\(y + 32)\" width=\"14\" height=\"14\" rx=\"3\"/>\n"
                }
                // One mark stands for ten of the idle.
                for mark in 0..<(port.idle + 9) / 10 {
                    body +=
                        "<rect class=\"pending\" x=\"\(x + 12 + 9 * mark)\" y=\"\(y + 52)\" width=\"6\" height=\"10\" rx=\"2\"/>\n"
                }
                body +=
                    "<rect class=\"track\" x=\"\(x + 12)\" y=\"\(y + 74)\" width=\"210\" height=\"16\" rx=\"4\"/>\n"
                if port.share > 0 {
                    body +=
                        "<rect class=\"queued\" x=\"\(x + 12)\" y=\"\(y + 74)\" width=\"\(210 * port.share / 100)\" height=\"16\" rx=\"4\"/>\n"
                }
                body += "<text x=\"\(x + 232)\" y=\"\(y + 87)\">\(port.share) %</text>\n"
            }
        }
        let y = height - 34
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(width) \(height)" width="\(width)" height="\(height)" \
            role="img" aria-labelledby="title description">
            <title id="title">Clients on their ports: placed in turn, even, and apart</title>
            <desc id="description">Placed in turn, every busy client happens to be on port 0, which has all the packets. After \
            one look at the traffic half of them are on each port. Or those that say much are on one port, and those that say \
            little on the other.</desc>
            <style>
            text{font-family:ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-size:14px;fill:#24292f}
            .page{fill:#ffffff}.box{fill:#f0f2f5;stroke:#8b949e;stroke-width:1.2}.track{fill:#d0d7de}
            .head{font-size:16px;font-weight:600}.small{font-size:12.5px;fill:#57606a}
            .posted{fill:#cc79a7}.pending{fill:#56b4e9}.queued{fill:#e69f00}.handled{fill:#00a878}
            @media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.box{fill:#1b222c;stroke:#57606a}
            .small{fill:#9da7b3}.track{fill:#30363d}}
            </style>
            <rect class="page" width="\(width)" height="\(height)" rx="8"/>
            \(body)<rect class="handled" x="24" y="\(y)" width="14" height="14" rx="3"/>
            <text class="small" x="44" y="\(y + 12)">a busy client</text>
            <rect class="pending" x="150" y="\(y + 2)" width="6" height="10" rx="2"/>
            <text class="small" x="164" y="\(y + 12)">ten idle clients</text>
            <rect class="queued" x="284" y="\(y)" width="26" height="14" rx="3"/>
            <text class="small" x="318" y="\(y + 12)">its part of the packets</text>
            </svg>

            """
    }

    private static let titles = [
        "as placed": "placed in turn", "even": "moved: as much on each",
        "segregated": "moved: busy and idle apart",
    ]
}
