/// A schedule in words.
extension WaitingState {
    private func name(_ thread: Int) -> String {
        switch thread {
        case WaitingState.outsider: "another thread"
        case WaitingState.sampler: "the sampler"
        default: ["A", "B", "C"][thread]
        }
    }

    /// What an event is, here, and what comes of it.
    func words(_ event: WaitingEvent, _ thread: Int, _ next: WaitingState) -> String {
        let (who, old, new) = (name(thread), self[thread], next[thread])
        switch event {
        case .step: return who + " " + step(old, new, next)
        case .samplerLooks: return "the sampler looks"
        case .asks, .asksForAWhile:
            return who + " asks" + (event == .asks ? "" : ", with a time-out") + outcome(new, next)
        case .posts, .outsiderPosts: return who + " posts a packet"
        case .completesOwn: return who + "'s own call completes at once"
        case .blocks: return who + " blocks in its handler"
        case .unblocks: return who + " runs again"
        case .saysBlocking: return who + " says that it may block"
        case .isBack: return who + " is back from that"
        case .ends: return who + " ends"
        case .timePasses: return who + "'s time is over"
        case .outsiderDelivers: return "a request completes on another thread"
        case .closes: return "the port is closed"
        case .completes: return "a request completes"
        case .completesWhatASleeperSubmitted: return "a request that \(who) submitted completes"
        }
    }

    private func step(_ old: Thread, _ new: Thread, _ next: WaitingState) -> String {
        switch old.at {
        case .handler, .gone: return "does nothing"
        case .wakes: return "wakes the driver"
        case .parked: return "leaves the stack" + outcome(new, next)
        case .asks, .calls, .sleeps, .woken, .reaps:
            let how = old.purpose == .wait ? "asks the driver" : "looks into the driver"
            if new.at == .sleeps { return how + ", and sleeps" }
            if new.at != .returns { return how }
            let wakeUp = isAlarmed && !next.isAlarmed ? ["the wake-up"] : []
            let brought = new.brought == 0 ? [] : ["\(new.brought) completed"]
            let found = wakeUp + brought
            return how + ": " + (found.isEmpty ? "nothing" : found.joined(separator: ", "))
        case .returns:
            if old.purpose == .pollBeforeSleep {
                if new.at == .returns { return "has found something" }
                return "finds nothing to do" + (new.purpose == .wait ? ", and will sleep" : ", and polls on")
            }
            return "has the lock" + outcome(new, next)
        }
    }

    private func outcome(_ new: Thread, _ next: WaitingState) -> String {
        let taking = next.taken > taken ? ", takes a packet" : ""
        return switch new.at {
        case .handler: taking.isEmpty ? ", and goes away" : taking
        case .wakes: taking + ", and is to wake the driver"
        case .parked: ", and parks"
        case .asks:
            new.purpose == .pollBeforeSleep ? ", and polls in the driver" : ", and goes into the driver"
        default: ""
        }
    }

    /// The port, in a few words.
    var summary: String {
        var words = ["running \(running)", "in the driver \(inKernel)"]
        if queued > 0 { words.append("queued \(queued)") }
        if promised > 0 { words.append("promised \(promised)") }
        if isWaking { words.append("isWaking") }
        if isClosed { words.append("closed") }
        return words.joined(separator: ", ")
    }
}
