import Glibc

/// When no thread polls a driver any more, what is pending there still comes to its end, and memory that the system was
/// lent comes back: a thread of the driver's own sees to that, for as long as there is something to see to.
extension Driver {
    /// Starts the thread, if one is needed and none is there. Called when something is brought to a retired driver.
    final func takeCare() {
        let isNeeded = retirement.locked {
            guard !hasCaretaker, hasWork else { return false }
            hasCaretaker = true
            return true
        }
        guard isNeeded else { return }
        let thread = try? Thread("caretaker") { [self] in
            while true {
                var completed = CompletionList()
                collect(until: .after(Driver.caretakersRound), &completed)
                completed.deliver()
                let isDone = retirement.locked {
                    if !hasWork { hasCaretaker = false }
                    return !hasCaretaker
                }
                if isDone { return }
            }
        }
        if thread == nil { retirement.locked { hasCaretaker = false } }
    }

    /// A worker on its way out may take the last answer, or the last wake-up: so the caretaker looks up from time to
    /// time.
    private static let caretakersRound = Duration.seconds(1)
}
