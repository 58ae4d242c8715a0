/// What has to hold. Each returns the rule that is broken, in words, or nil.
extension WaitingModel {
    /// In every state.
    func violation(after old: WaitingState) -> String? {
        var (running, inKernel, packets): (Int8, Int8, Int8) = (
            0, 0, (now.queued + now.promised + now.taken + now.dropped)
        )
        for index in 0..<5 {
            let thread = now[index]
            packets += thread.brought
            guard index < WaitingState.outsider else { continue }
            if thread.state == .running, thread.at != .gone { running += 1 }
            if thread.state == .inKernel { inKernel += 1 }
            if thread.release == .packet {
                running += 1
                packets += 1
            }
        }
        if packets != now.arrived { return "I2.1: a packet is lost, or there twice" }
        if running != now.running { return "the count of those who run is wrong" }
        if inKernel != now.inKernel { return "the count of those in the driver is wrong" }
        if now.promised > now.inKernel { return "more packets are promised than workers are in the driver" }
        if now.isClosed { return nil }
        if running > setting.limit, !now.isExcused { return "I2.6: more run than the limit says" }
        let (sum, sumBefore) = (now.running + now.inKernel, old.running + old.inKernel)
        if sum > setting.limit, sum > sumBefore, !mayExceed {
            return "I2.6: more run and wait in the driver than the limit says, for no stated reason"
        }
        return nil
    }

    /// In a state of rest: nothing moves any more unless something comes from outside.
    var violationAtRest: String? {
        var (parked, asleep, awake): (Int8, Int8, Int8) = (0, 0, 0)
        for index in 0..<WaitingState.outsider {
            let worker = now[index]
            if worker.at == .parked { parked += 1 }
            if worker.at == .sleeps { asleep += 1 }
            if worker.at == .handler, worker.state == .running, !worker.isBlocked { awake += 1 }
        }
        let isAnybodyIdle = parked + asleep > 0
        if now.isClosed {
            return isAnybodyIdle ? "I2.9: the port is closed, and a worker sleeps for ever" : nil
        }
        if now.promised > 0 { return "I2.7: a packet is promised, and nobody comes for it" }
        let isAnythingThere = now.queued > 0 || now.ready > 0
        // Who really runs counts, once the sampler has had its look.
        let really = setting.noticesBlocking ? awake : now.running
        if isAnybodyIdle, isAnythingThere, now.running < setting.limit {
            return "I2.7: a packet waits, and so does a worker, and the limit has room"
        }
        if parked > 0, now.inKernel == 0, now.running < setting.limit {
            return "I2.7: nobody is in the driver, and a parked worker could be"
        }
        if isAnybodyIdle, isAnythingThere || now.inKernel == 0 && parked > 0, really < setting.limit {
            return "I2.8: blocked workers hold the limit, and what they cannot do waits beside an idle worker"
        }
        if now.isWaking { return "a wake-up is under way, and nobody is to have it" }
        return nil
    }
}
