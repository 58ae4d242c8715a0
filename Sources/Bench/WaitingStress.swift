import CompletionPortsPitfalls
import Stage

/// Every order of three workers at a port, with posts, completions, time-outs, polling, blocking and the end.
enum Waiting {
    @Sendable static func run(_ terminal: Terminal) throws -> Bool {
        var holds = true
        var rows: [[String]] = []
        for interface in WaitingSetting.Interface.allCases {
            // A ring whose limit is 1 has one waiter.
            for limit in Int8(interface == .epoll ? 1 : 2)...3 {
                for (name, setting) in settings(limit, interface) {
                    let search = WaitingSearch(setting)
                    rows.append([
                        interface.rawValue, "\(limit)", name, "\(search.states)", "\(search.transitions)",
                        "\(search.rests)",
                    ])
                    for finding in search.findings {
                        holds = false
                        terminal.say("\(interface.rawValue), limit \(limit), \(name): \(finding.rule)")
                        for line in finding.schedule { terminal.say("  " + line) }
                    }
                }
            }
        }
        terminal.table(["driver", "limit", "three workers, and", "states", "transitions", "at rest"], rows)
        return holds
    }

    private static func settings(
        _ limit: Int8, _ interface: WaitingSetting.Interface
    ) -> [(String, WaitingSetting)] {
        var setting = WaitingSetting(3, limit: limit, interface)
        setting.posts = 1
        setting.completions = 1
        var (polling, blocking, timeout, handlers) = (setting, setting, setting, setting)
        polling.polls = true
        polling.completions = 2
        blocking.blocks = 1
        blocking.saysSo = 1
        timeout.timeouts = 1
        handlers.handlerPosts = 1
        handlers.ownCompletions = 1
        handlers.turnsBeforeKernel = 1
        return [
            ("polling", polling), ("blocking", blocking), ("a time-out", timeout),
            ("posts of handlers", handlers),
        ]
    }
}
