import Kernel
import Reordering

/// The stage's server: chapter 05's hub, whose posted receives lock no more pages than a budget allows.
///
/// In buffered mode every idle client locks a buffer; in zero-byte mode none does; in adaptive mode that depends on how
/// many there are. No client is closed for want of memory: it waits. (I7.3) What the clients are answered is their handlers'
/// business, as everywhere; by default they get their own bytes back.
public final class BudgetedServer: Sendable {
    /// Where it listens.
    public let address: Address
    /// The connections, and what has happened to them.
    public let hub: StreamHub
    /// What they wait with: the budget, the buffers and the mode.
    public let receives: BudgetedReceives

    /// The server's limits and choices.
    public struct Options: Sendable {
        /// Those of chapter 05. Here a connection has one read pending unless it is told otherwise: each one more locks
        /// its pages as well.
        public var hub = StreamHub.Options()
        /// Bytes that a connection receives at a time; in whole pages.
        public var bufferSize = Page.size
        /// Buffers that are in use at a time; nil: as many as all connections can have. With fewer, connections wait for
        /// them.
        public var maximumBuffers: Int?
        /// Buffers that keep their memory while they are not in use.
        public var maximumFreeBuffers = 1_024
        /// Pages that may be locked: 32 MiB where a page has 4 KiB.
        public var budgetPages = 8_192
        /// What stands behind the budget.
        public var locking = PageBudget.Locking.counted
        /// How connections wait for bytes; nil: adaptive, with thresholds that follow from the budget.
        public var choice: BudgetedReceives.Choice?

        /// The defaults.
        public init() { hub.pendingReads = 1 }
    }

    /// Starts to listen and to serve.
    ///
    /// - Throws: EADDRINUSE when the address is taken, EINVAL for impossible options, EMFILE, ENOMEM.
    public init(
        on address: Address = .loopback(), options: Options = Options(),
        handler: @escaping @Sendable (StreamConnection) -> any StreamHandler = { _ in Echo() }
    ) throws(SystemError) {
        receives = try options.makeReceives()
        var choices = options.hub
        choices.receives = receives
        // Larger buffers are never posted, so none of them is charged; but they are memory, and there is a bound to it.
        choices.maximumLargerBytes = min(
            choices.maximumLargerBytes, options.budgetPages * Page.size / 4)
        hub = try StreamHub(choices)
        do throws(SystemError) {
            self.address = try hub.listen(on: address, handler: handler)
        } catch {
            hub.stop()
            throw error
        }
    }

    /// Closes every connection, waits until every page and every buffer is back, and ends every thread.
    ///
    /// - Returns: false when something was not back in time: then something is wrong, and the counters say what.
    @discardableResult
    public func stop() -> Bool {
        let isClean = hub.stop()
        return isClean && receives.budget.counters.locked == 0 && receives.slab.counters.inUse == 0
    }
}

extension BudgetedServer.Options {
    /// The policy that follows from them.
    fileprivate func makeReceives() throws(SystemError) -> BudgetedReceives {
        let reads = hub.pendingReads
        let pagesEach = Page.count(bytes: bufferSize)
        guard pagesEach > 0, pagesEach <= budgetPages, reads > 0, hub.maximumConnections > 0 else {
            throw SystemError.invalid("start a server without room for a client")
        }
        let (pages, _) = pagesEach.multipliedReportingOverflow(by: reads)
        let choice = choice ?? .adaptive(ReceiveThresholds(budget: budgetPages, pagesEach: pages))
        switch choice {
        case .adaptive(let thresholds) where thresholds.bufferedUpTo >= thresholds.zeroByteFrom:
            throw SystemError.invalid(
                "change over at \(thresholds.zeroByteFrom) connections, and back at \(thresholds.bufferedUpTo)"
            )
        case .mixed(let posted) where !(1..<reads).contains(posted):
            throw SystemError.invalid("post \(posted) of \(reads) reads with buffers, and a wait behind them")
        default: break
        }
        let (all, isBeyond) = hub.maximumConnections.multipliedReportingOverflow(by: reads)
        let slab = try PageSlab(
            bufferSize: bufferSize, capacity: maximumBuffers ?? (isBeyond ? .max : all),
            maximumFree: maximumFreeBuffers)
        return BudgetedReceives(choice, budget: PageBudget(pages: budgetPages, locking: locking), slab: slab)
    }
}
