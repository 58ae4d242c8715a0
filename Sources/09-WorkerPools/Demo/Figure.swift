import Stage
import WorkerPools

/// The way of a question, as the article's second figure has it, with the numbers of a run.
struct Figure {
    let clients: Int
    let read: Int
    let hellos: Int
    let jobs: WorkerPool.Counters
    let answers: Int
    let messages: MessageQueue.Counters

    func svg() -> String {
        """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 420" width="960" height="420" role="img" \
        aria-labelledby="title description">
        <title id="title">From the port to the logical workers, and to the screen</title>
        <desc id="description">Workers of the port read the questions of \(clients) clients. The handler answers \
        \(hellos) of them at once, and adds \(jobs.added) as jobs to a bounded queue. Logical workers take the jobs and \
        send the answers to the clients by their names, each in its place. What workers have to say goes to the screen \
        through a queue of its own, which one thread writes.</desc>
        <style>
        text{font-family:ui-sans-serif,system-ui,"DejaVu Sans",sans-serif;font-size:14px;fill:#24292f}
        .page{fill:#ffffff}.box{fill:#f0f2f5;stroke:#8b949e;stroke-width:1.2}
        .head{font-size:16px;font-weight:600}.small{font-size:12.5px;fill:#57606a}
        .in{fill:#10241c;font-size:13px}.line{stroke:#57606a;stroke-width:2;fill:none}.tip{fill:#57606a}
        .posted{fill:#cc79a7}.pending{fill:#56b4e9}.queued{fill:#e69f00}.handled{fill:#00a878}
        @media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.box{fill:#1b222c;stroke:#57606a}
        .small{fill:#9da7b3}.in{fill:#10241c}.line{stroke:#9da7b3}.tip{fill:#9da7b3}}
        </style>
        <rect class="page" width="960" height="420" rx="8"/>

        <rect class="box" x="20" y="56" width="140" height="170" rx="8"/>
        <text class="head" x="36" y="84">\(clients) clients</text>
        <rect class="pending" x="36" y="98" width="108" height="22" rx="5"/><text class="in" x="44" y="114">pending reads</text>
        <text class="small" x="36" y="150">\(read) bytes</text>
        <text class="small" x="36" y="168">of questions</text>

        <rect class="box" x="220" y="56" width="140" height="170" rx="8"/>
        <text class="head" x="236" y="84">port</text>
        <rect class="queued" x="236" y="98" width="108" height="22" rx="5"/><text class="in" x="244" y="114">packets</text>
        <text class="small" x="236" y="150">I/O worker</text>
        <text class="small" x="236" y="168">takes, and is back</text>
        <text class="small" x="236" y="186">in microseconds</text>

        <rect class="box" x="420" y="56" width="140" height="170" rx="8"/>
        <text class="head" x="436" y="84">handler</text>
        <rect class="handled" x="436" y="98" width="108" height="22" rx="5"/><text class="in" x="444" y="114">\(hellos) × hello</text>
        <text class="small" x="436" y="150">answers at once,</text>
        <text class="small" x="436" y="168">or takes a ticket</text>
        <text class="small" x="436" y="186">and adds a job</text>

        <rect class="box" x="620" y="56" width="140" height="170" rx="8"/>
        <text class="head" x="636" y="84">job queue</text>
        <rect class="queued" x="636" y="98" width="108" height="22" rx="5"/><text class="in" x="644" y="114">\(jobs.added) jobs</text>
        <text class="small" x="636" y="150">at most \(jobs.peak) waited</text>
        <text class="small" x="636" y="168">bounded; a share</text>
        <text class="small" x="636" y="186">for each client</text>

        <rect class="box" x="810" y="56" width="130" height="170" rx="8"/>
        <text class="head" x="826" y="84">logical</text>
        <rect class="handled" x="826" y="98" width="98" height="22" rx="5"/><text class="in" x="834" y="114">\(jobs.done) done</text>
        <text class="small" x="826" y="150">compute, block,</text>
        <text class="small" x="826" y="168">as many as</text>
        <text class="small" x="826" y="186">you like</text>

        <path class="line" d="M160 110H212"/><path class="tip" d="M220 110l-11-6v12z"/>
        <path class="line" d="M360 110H412"/><path class="tip" d="M420 110l-11-6v12z"/>
        <path class="line" d="M560 110H612"/><path class="tip" d="M620 110l-11-6v12z"/>
        <path class="line" d="M760 110H802"/><path class="tip" d="M810 110l-11-6v12z"/>

        <path class="line" d="M850 226V276H90V234"/><path class="tip" d="M90 226l-6 11h12z"/>
        <text class="small" x="250" y="268">answers: found by name, each in its place; none for a client that has left</text>
        <path class="line" d="M490 226V246H130V234"/><path class="tip" d="M130 226l-6 11h12z"/>
        <text class="small" x="250" y="240">\(hellos) answers at once</text>

        <rect class="box" x="420" y="306" width="140" height="74" rx="8"/>
        <text class="head" x="436" y="334">messages</text>
        <rect class="queued" x="436" y="344" width="108" height="22" rx="5"/><text class="in" x="444" y="360">\(messages.said) said</text>
        <rect class="box" x="220" y="306" width="140" height="74" rx="8"/>
        <text class="head" x="236" y="334">screen</text>
        <rect class="handled" x="236" y="344" width="108" height="22" rx="5"/><text class="in" x="244" y="360">\(messages.written) written</text>
        <path class="line" d="M890 226V344H568"/><path class="tip" d="M560 344l11-6v12z"/>
        <path class="line" d="M420 344H368"/><path class="tip" d="M360 344l11-6v12z"/>
        <text class="small" x="580" y="366">who says something never waits; one thread writes</text>

        <rect class="pending" x="20" y="396" width="14" height="10" rx="2"/><text class="small" x="40" y="405">pending</text>
        <rect class="queued" x="112" y="396" width="14" height="10" rx="2"/><text class="small" x="132" y="405">queued</text>
        <rect class="handled" x="204" y="396" width="14" height="10" rx="2"/><text class="small" x="224" y="405">handled</text>
        </svg>

        """
    }
}
