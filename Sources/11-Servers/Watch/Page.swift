import Timeline

extension StatusPage {
    /// The page: all of it, nothing from elsewhere. What the server tells is only ever set as text.
    static let html = #"""
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Server</title>
        <link rel="icon" href="data:,">
        <style>
        :root{color-scheme:light dark;--ink:#24292f;--soft:#57606a;--line:#d8dee4;--page:#fff;--card:#f6f8fa;
        --one:\#(Phase.posted.colour);--two:\#(Phase.pending.colour);
        --three:\#(Phase.queued.colour);--four:\#(Phase.handled.colour)}
        @media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--line:#30363d;--page:#0d1117;--card:#161b22}}
        *{box-sizing:border-box}
        body{margin:0 auto;padding:16px;max-width:1200px;background:var(--page);color:var(--ink);
        font:15px/1.45 ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
        h1{font-size:20px;margin:0;overflow-wrap:anywhere}h2{font-size:13px;margin:0 0 6px;color:var(--soft);font-weight:600}
        header{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:baseline;justify-content:space-between;margin:0 0 16px}
        #state{color:var(--soft)}#state::before{content:"";display:inline-block;width:9px;height:9px;border-radius:50%;
        margin-right:6px;background:var(--soft)}#state.live::before{background:var(--four)}
        .cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:12px;margin:0 0 12px}
        .card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;min-width:0}
        .wide{grid-column:1/-1}#groups{display:contents}.big{font-size:28px;line-height:1.2;font-weight:600}.soft{color:var(--soft)}
        svg{display:block;width:100%;height:56px;margin-top:6px}polyline{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
        dl{display:grid;grid-template-columns:1fr auto;gap:2px 12px;margin:0}dt{color:var(--soft);overflow-wrap:anywhere}
        dd{margin:0;text-align:right}
        .bar{display:flex;height:14px;border-radius:4px;overflow:hidden;background:var(--line);margin:8px 0}
        .bar i{display:block}.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
        .scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
        th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--line);white-space:nowrap}
        th{font-size:13px;color:var(--soft);font-weight:600}td.n,th.n{text-align:right}tr:last-child td{border-bottom:0}
        progress{appearance:none;border:0;border-radius:5px;overflow:hidden;width:110px;height:10px;vertical-align:middle;
        margin-left:8px;background:var(--line)}progress::-webkit-progress-bar{background:var(--line)}
        progress::-webkit-progress-value{background:var(--two)}progress::-moz-progress-bar{background:var(--two)}
        pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 ui-monospace,"DejaVu Sans Mono",monospace}
        </style>
        </head>
        <body>
        <header><h1 id="name">Server</h1><span id="state" role="status">connecting</span></header>
        <main>
        <div class="cards">
        <section class="card"><h2>Connections</h2><div class="big" id="connections">–</div>
        <div class="soft" id="peak"></div></section>
        <section class="card"><h2>Messages per second</h2><div class="big" id="messages">–</div>
        <svg viewBox="0 0 120 40" preserveAspectRatio="none" role="img" aria-label="Messages per second, last minute">
        <polyline id="messageCurve" points="" stroke="var(--two)"/></svg></section>
        <section class="card"><h2>Bytes per second</h2><div class="big" id="bytes">–</div>
        <svg viewBox="0 0 120 40" preserveAspectRatio="none" role="img" aria-label="Bytes per second, last minute">
        <polyline id="byteCurve" points="" stroke="var(--four)"/></svg></section>
        <section class="card"><h2>Workers</h2><div class="bar" id="bar"></div><dl id="workers"></dl></section>
        <div id="groups"></div>
        </div>
        <div class="cards">
        <section class="card wide"><h2>Clients</h2><div class="scroll"><table>
        <thead><tr><th>Name</th><th>Address</th><th>State</th><th class="n">Messages</th><th class="n">Bytes</th>
        <th>File</th></tr></thead><tbody id="rows"></tbody></table></div><div class="soft" id="more"></div></section>
        <section class="card wide"><h2>Texts received</h2><pre id="lines"></pre></section>
        </div>
        </main>
        <script>
        "use strict";
        const at = id => document.getElementById(id);
        const colours = ["--four", "--two", "--soft", "--three", "--one"];
        const make = (tag, text, kind) => {
          const element = document.createElement(tag);
          if (text !== undefined) element.textContent = text;
          if (kind) element.className = kind;
          return element;
        };
        const many = n => n < 10000 ? String(Math.round(n)) : n < 1e6 ? (n / 1e3).toFixed(1) + " k"
          : n < 1e9 ? (n / 1e6).toFixed(1) + " M" : (n / 1e9).toFixed(1) + " G";
        const pairs = (list, figures, colour) => list.replaceChildren(...Object.entries(figures).flatMap(([name, value], i) => {
          const term = make("dt", name);
          if (colour) {
            const key = make("span", undefined, "key");
            key.style.background = `var(${colours[i % colours.length]})`;
            term.prepend(key);
          }
          return [term, make("dd", many(value))];
        }));
        const history = [];
        const curve = (line, values) => {
          const top = Math.max(1, ...values);
          line.setAttribute("points", values.map((v, i) => `${120 - (values.length - 1 - i)},${39 - 37 * v / top}`).join(" "));
        };
        let last;
        const nothing = { name: "Server", messages: 0, bytes: 0, connections: 0, peak: 0, workers: {}, groups: [], rows: [], lines: [] };
        function show(figures) {
          const now = { ...nothing, ...figures };
          document.title = now.connections + " · " + now.name;
          at("name").textContent = now.name;
          at("connections").textContent = now.connections;
          at("peak").textContent = "most " + now.peak;
          if (last && now.milliseconds > last.milliseconds) {
            const seconds = (now.milliseconds - last.milliseconds) / 1000;
            // A server that was started again counts from 0.
            history.push([Math.max(0, now.messages - last.messages) / seconds, Math.max(0, now.bytes - last.bytes) / seconds]);
            if (history.length > 120) history.shift();
            ["messages", "bytes"].forEach((id, i) => { at(id).textContent = many(history[history.length - 1][i]); });
            curve(at("messageCurve"), history.map(h => h[0]));
            curve(at("byteCurve"), history.map(h => h[1]));
          }
          last = now;
          at("bar").replaceChildren(...Object.values(now.workers).map((count, i) => {
            const part = make("i");
            part.style.flexGrow = count;
            part.style.background = `var(${colours[i % colours.length]})`;
            return part;
          }));
          pairs(at("workers"), now.workers, true);
          at("groups").replaceChildren(...now.groups.map(group => {
            const card = make("section", undefined, "card"), list = make("dl");
            pairs(list, group.figures);
            card.append(make("h2", group.name), list);
            return card;
          }));
          at("rows").replaceChildren(...now.rows.map(row => {
            const line = make("tr"), file = make("td");
            if (row.file) {
              const bar = make("progress");
              bar.max = Math.max(1, row.file.size);
              bar.value = row.file.done;
              file.append(make("span", row.file.name), bar);
            }
            line.append(make("td", row.id), make("td", row.address), make("td", row.state),
              make("td", many(row.messages), "n"), make("td", many(row.bytes), "n"), file);
            return line;
          }));
          const hidden = now.connections - now.rows.length;
          at("more").textContent = now.connections === 0 ? "none" : hidden > 0 ? "and " + hidden + " more" : "";
          at("lines").textContent = now.lines.join("\n") || "none";
        }
        const state = (word, live) => { at("state").textContent = word; at("state").className = live ? "live" : ""; };
        const listen = () => {
          const events = new EventSource("events");
          events.onopen = () => state("live", true);
          events.onmessage = event => show(JSON.parse(event.data));
          events.onerror = () => {
            state("the server does not answer; trying again", false);
            // Some browsers give up when nobody listens.
            if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
          };
        };
        listen();
        </script>
        </body>
        </html>

        """#
}
