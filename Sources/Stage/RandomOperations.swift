import CKernel
import Glibc
import Kernel
import Synchronization

/// Drives a kernel driver with random operations from several threads, and compares what happens with a model that
/// is simple enough to be believed:
///
/// - every post that was accepted completes exactly once, and nothing else completes;
/// - the receives of a connection, in the order they were posted, hold exactly what the peer wrote, without a gap, and
///   not its urgent byte;
/// - the peer reads exactly what the sends, in the order they were posted, say that they handed over;
/// - a failure is one that one of the threads has caused: by a cancel, a close, a reset.
///
/// The seed decides what each thread does; how the threads fall into each other is the system's.
public struct RandomOperations {
    /// What a run did.
    public struct Report: Sendable {
        /// Posts that were accepted, cancels and closes.
        public var operations = 0
        /// Connections that were made, used and checked.
        public var connections = 0
        /// Completions that succeeded.
        public var succeeded = 0
        /// Completions that were cancelled.
        public var cancelled = 0
        /// Completions that failed otherwise.
        public var failed = 0
        /// Bytes compared.
        public var bytes = 0
    }

    /// A difference between the driver and the model, with the seed that leads there.
    public struct Difference: Error, CustomStringConvertible {
        let seed: UInt64
        let what: String

        /// One line.
        public var description: String { "with seed \(seed): \(what)" }
    }

    /// Runs until this many operations are done.
    ///
    /// - Parameters:
    ///   - operations: How many, at least; threads share them.
    ///   - seed: Nil takes the environment's `PORT_SEED`, or a new one.
    /// - Throws: `Difference` at the first difference; `SystemError` when the system cannot give what is needed.
    public static func run(
        _ kind: DriverKind, operations: Int, seed: UInt64? = nil, threads: Int = 3
    ) throws -> Report {
        let given = getenv("PORT_SEED").flatMap { UInt64(String(cString: $0)) }
        let seed = seed ?? given ?? monotonicNanoseconds()
        let world = World(seed, try ModelTarget(kind, pollers: 1 + Int(seed % 2)))
        inThreads(threads, named: "model") { index in
            var player = Player(world, Dice(seed: seed &+ UInt64(index) &* 0x9e37))
            player.play(until: operations)
        }
        while let connection = world.last { connection.finish(orderly: true) }
        world.target.stop()
        if let what = world.difference { throw Difference(seed: seed, what: what) }
        return world.report
    }
}

/// Random numbers that a seed decides (SplitMix64).
struct Dice: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    mutating func roll(_ sides: Int) -> Int { Int(next() % UInt64(sides)) }
}

// MARK: What is shared

/// Takes completions from polling threads of its own, and tells each operation.
private final class ModelTarget: CompletionTarget, @unchecked Sendable {
    let driver: Driver
    private let isEnding = Atomic<Bool>(false)
    private var threads: [Thread] = []

    init(_ kind: DriverKind, pollers: Int) throws(SystemError) {
        driver = try Driver.make(kind, waiters: pollers)
        super.init()
        for index in 0..<pollers { threads.append(startThread("poller \(index)") { self.poll() }) }
    }

    private func poll() {
        while !isEnding.load(ordering: .acquiring) {
            var completed = CompletionList()
            driver.poll(for: self, until: .never, &completed)
            take(&completed)
        }
        driver.wake()
    }

    func stop() {
        isEnding.store(true, ordering: .releasing)
        driver.wake()
        for thread in threads { thread.join() }
        threads = []
    }

    override func take(_ completed: inout CompletionList) {
        while let reference = completed.popFirst() {
            let act = reference.takeRetainedValue() as! Act
            act.connection.completed(act)
        }
    }
}

private final class World: @unchecked Sendable {
    let seed: UInt64
    let target: ModelTarget
    /// Bytes without a pattern: any stream is a walk through them.
    let bytes: UnsafeMutableRawBufferPointer
    static let period = 1 << 16
    /// Posts that were accepted, cancels and closes.
    let operations = Atomic<Int>(0)
    private let monitor = Monitor()
    private var found: String?  // under the monitor, like what follows
    private var counts = RandomOperations.Report()
    private var current: [Connection] = []

    init(_ seed: UInt64, _ target: ModelTarget) {
        self.seed = seed
        self.target = target
        bytes = .allocate(byteCount: 2 * World.period, alignment: 16)
        var dice = Dice(seed: seed)
        for index in 0..<World.period {
            let byte = UInt8(truncatingIfNeeded: dice.next())
            bytes[index] = byte
            bytes[index + World.period] = byte
        }
    }

    deinit { bytes.deallocate() }

    var difference: String? { monitor.locked { found } }
    var isOver: Bool { difference != nil }
    var report: RandomOperations.Report {
        monitor.locked {
            counts.operations = operations.load(ordering: .relaxed)
            return counts
        }
    }

    /// The first difference counts: what comes after may follow from it.
    func tell(_ what: String) { monitor.locked { if found == nil { found = what } } }

    func count(_ change: (inout RandomOperations.Report) -> Void) { monitor.locked { change(&counts) } }

    /// A stretch of the bytes, as a stream has it at a position.
    func stretch(_ position: Int, _ count: Int) -> UnsafeRawBufferPointer {
        let start = position % World.period
        return UnsafeRawBufferPointer(rebasing: bytes[start..<start + count])
    }

    /// One of the connections that are in use, and a new one where there are too few. `leave` or `drop` comes after.
    func enter(_ number: Int) throws -> Connection {
        let known = monitor.locked { () -> Connection? in
            guard number < current.count else { return nil }
            current[number].users += 1
            return current[number]
        }
        if let known { return known }
        let new = try Connection(self)
        return monitor.locked {
            new.users = 1
            current.append(new)
            return new
        }
    }

    func leave(_ connection: Connection) {
        monitor.locked {
            connection.users -= 1
            monitor.broadcast()
        }
    }

    /// Instead of `leave`: true for the one caller who is to finish the connection, when all others have left it.
    func drop(_ connection: Connection) -> Bool {
        monitor.locked {
            guard let index = current.firstIndex(where: { $0 === connection }) else { return false }
            current.remove(at: index)
            while connection.users > 1 { monitor.wait() }
            return true
        }
    }

    /// A connection that is left over when all players have gone.
    var last: Connection? { monitor.locked { current.popLast() } }
}

/// One operation, and what the model remembers of it.
private final class Act: Overlapped, @unchecked Sendable {
    let connection: Connection
    let memory: UnsafeMutableRawBufferPointer
    // Written by the thread that takes the completion, under the connection's monitor.
    var completions = 0

    init(_ connection: Connection, _ count: Int) {
        self.connection = connection
        memory = .allocate(byteCount: count, alignment: 16)
        super.init()
    }

    deinit { memory.deallocate() }
}

// MARK: A connection

private final class Connection: @unchecked Sendable {
    private let world: World
    private let socket: Socket
    private let peer: Socket
    private let monitor = Monitor()
    private var pending = 0  // under the monitor, like what follows
    private var pendingReceives = 0
    private var pendingSends = 0
    /// Threads that are using this connection. Under the world's monitor.
    var users = 0
    // A thread that posts receives has this lock, so that there is an order; the same for sends, and for the peer.
    private let receiving = Lock()
    private var receives: [Act] = []
    private let sending = Lock()
    private var sends: [Act] = []
    private let peering = Lock()
    private var written = 0
    private var heard: [UInt8] = []
    private var isPeerDone = false
    private var wasUrgent = false
    // What has been done to the connection, so far that it explains failures.
    private let isClosed = Atomic<Bool>(false)
    private let isCancelled = Atomic<Bool>(false)
    private let isReset = Atomic<Bool>(false)
    private let age = Atomic<Int>(0)

    static let receivesAtOnce = 12
    static let sendsAtOnce = 6
    static let largest = 40_000

    init(_ world: World) throws {
        self.world = world
        let listener = try Socket.listener(on: .loopback())
        peer = try Socket.connected(to: listener.localAddress)
        var accepted: Socket?
        while accepted == nil { accepted = try listener.acceptNow() }
        socket = accepted!
        try socket.setBufferSizes(send: 65_536)
        try socket.associate(with: world.target, key: 1, driver: world.target.driver)
        world.count { $0.connections += 1 }
    }

    /// Steps taken on this connection, these included.
    func grow(_ steps: Int) -> Int { age.add(steps, ordering: .relaxed).newValue }

    func completed(_ act: Act) {
        let code = act.errorCode
        let isReceive = act.kind == .receive
        monitor.locked {
            act.completions += 1
            if act.completions != 1 { world.tell("\(act.kind) completed \(act.completions) times") }
            pending -= 1
            if pending < 0 { world.tell("\(act.kind) completed that was not pending") }
            if isReceive { pendingReceives -= 1 } else { pendingSends -= 1 }
            if pending == 0 { monitor.broadcast() }
        }
        act.wasDequeued()
        world.count {
            switch code {
            case 0: $0.succeeded += 1
            case ECANCELED: $0.cancelled += 1
            default: $0.failed += 1
            }
        }
    }

    // MARK: Steps

    func postReceive(_ dice: inout Dice) {
        let act = Act(self, dice.roll(5) == 0 ? 0 : 1 + dice.roll(8_192))
        receiving.locked {
            guard monitor.locked({ pendingReceives }) < Connection.receivesAtOnce else { return }
            if post(act, { () throws(SystemError) in try socket.receive(act, into: act.memory) }) {
                receives.append(act)
            }
        }
    }

    func postSend(_ dice: inout Dice) {
        let count =
            dice.roll(8) == 0 ? 0 : dice.roll(10) == 0 ? dice.roll(Connection.largest) : dice.roll(3_000)
        let act = Act(self, count)
        act.memory.copyMemory(from: world.stretch(dice.roll(World.period), count))
        sending.locked {
            guard monitor.locked({ pendingSends }) < Connection.sendsAtOnce else { return }
            if post(
                act, isReceive: false,
                { () throws(SystemError) in
                    try socket.send(act, from: .init(act.memory))
                })
            {
                sends.append(act)
            }
        }
    }

    private func post(_ act: Act, isReceive: Bool = true, _ body: () throws(SystemError) -> Void) -> Bool {
        let count = { [self] (change: Int) in
            monitor.locked {
                pending += change
                if isReceive { pendingReceives += change } else { pendingSends += change }
                if pending == 0 { monitor.broadcast() }
            }
        }
        // Counted before, since it may complete within.
        count(1)
        do {
            try body()
            world.operations.add(1, ordering: .relaxed)
            return true
        } catch {
            count(-1)
            if act.isPending || act.completions != 0 { world.tell("a refused post is pending or completed") }
            let isClosedNow = error.code == EBADF && isClosed.load(ordering: .acquiring)
            if !isClosedNow, !isExplained(error.code) { world.tell("a post was refused: \(error)") }
            return false
        }
    }

    private func isExplained(_ code: Int32) -> Bool {
        switch code {
        case ECANCELED: isClosed.load(ordering: .acquiring) || isCancelled.load(ordering: .acquiring)
        case ECONNRESET: isReset.load(ordering: .acquiring)
        default: false
        }
    }

    func cancelOne(_ dice: inout Dice) {
        let back = dice.roll(8)
        let victim: Act? =
            if dice.roll(2) == 0 {
                receiving.locked { receives.dropLast(back).last }
            } else {
                sending.locked { sends.dropLast(back).last }
            }
        guard let victim else { return }
        isCancelled.store(true, ordering: .releasing)
        socket.cancel(victim)
        world.operations.add(1, ordering: .relaxed)
    }

    func cancelAll() {
        isCancelled.store(true, ordering: .releasing)
        socket.cancel()
        world.operations.add(1, ordering: .relaxed)
    }

    func close() {
        isClosed.store(true, ordering: .releasing)
        socket.close()
        world.operations.add(1, ordering: .relaxed)
    }

    func peerWrites(_ dice: inout Dice) {
        let wanted = 1 + dice.roll(dice.roll(10) == 0 ? Connection.largest : 2_000)
        peering.locked {
            guard !isPeerDone else { return }
            if let count = try? peer.sendNow(world.stretch(written, wanted)) { written += count }
        }
    }

    /// One urgent byte, which no receive gets. Only one: the next would make an ordinary byte of it, if it still lay there.
    func peerSpeaksUrgently() {
        peering.locked {
            guard !isPeerDone, !wasUrgent else { return }
            var byte: UInt8 = 0
            wasUrgent = send(peer.descriptor, &byte, 1, Int32(MSG_OOB | MSG_NOSIGNAL)) == 1
        }
    }

    func peerReads(_ dice: inout Dice) { peering.locked { _ = hear(1 + dice.roll(Connection.largest)) } }

    /// With the peer's lock. False when there is nothing more now, or never again.
    private func hear(_ limit: Int) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: limit, alignment: 16) { scratch in
            guard let count = try? peer.receiveNow(into: scratch), count > 0 else { return false }
            heard.append(contentsOf: scratch[..<count])
            return true
        }
    }

    func peerShutsDown() {
        peering.locked {
            guard !isPeerDone else { return }
            isPeerDone = true
            try? peer.shutDownSending()
        }
    }

    func peerResets() {
        peering.locked {
            while hear(Connection.largest) {}
            isPeerDone = true
            isReset.store(true, ordering: .releasing)
            try? peer.setAbortiveClose()
            peer.close()
        }
    }

    // MARK: The end

    /// Brings the connection to its end, in an orderly way or not, and compares.
    func finish(orderly: Bool) {
        let isOrderly =
            orderly && !isReset.load(ordering: .acquiring) && !isClosed.load(ordering: .acquiring)
            && endOrderly()
        close()
        guard settle() else { return world.tell("after a close \(pending) operations are still pending") }
        peering.locked { if !isReset.load(ordering: .acquiring) { while hear(Connection.largest) {} } }
        compareReceives(isWhole: isOrderly)
        compareSends(isWhole: isOrderly)
        peer.close()
        // The operations refer to their connection.
        receives = []
        sends = []
    }

    /// Waits until nothing is pending.
    private func settle() -> Bool {
        let deadline = Deadline.after(Gate.patience)
        return monitor.locked {
            while pending > 0 {
                if !monitor.wait(until: deadline) { return pending == 0 }
            }
            return true
        }
    }

    /// No other thread uses the connection now: both sides take all that the other gave.
    private func endOrderly() -> Bool {
        peerShutsDown()
        let deadline = Deadline.after(Gate.patience)
        while true {
            if deadline.hasPassed {
                world.tell("both sides read, and \(pending) operations are still pending")
                return false
            }
            _ = peering.locked { hear(Connection.largest) }
            if sends.contains(where: \.isPending) { continue }
            let act = Act(self, 8_192)
            guard post(act, { () throws(SystemError) in try socket.receive(act, into: act.memory) }) else {
                return false
            }
            receives.append(act)
            while !act.wait(until: .after(.milliseconds(10))) {
                if deadline.hasPassed { break }
            }
            if !act.isPending, act.bytes == 0 { break }
        }
        // The end has been seen; and what the peer has not heard is on its way to it.
        let handedOver = sends.reduce(0) { $0 + $1.bytes }
        while heard.count < handedOver, !deadline.hasPassed { _ = hear(Connection.largest) }
        return true
    }

    private func compareReceives(isWhole: Bool) {
        var position = 0
        var hasEnded = false
        for act in receives {
            if act.completions != 1 { return world.tell("a receive completed \(act.completions) times") }
            guard act.errorCode == 0 else {
                if !isExplained(act.errorCode) { world.tell("a receive failed: \(act.error!)") }
                if act.bytes != 0 { world.tell("a receive failed with \(act.bytes) bytes") }
                continue
            }
            if act.bytes == 0 {
                hasEnded = hasEnded || act.memory.count > 0
                continue
            }
            if hasEnded { return world.tell("bytes came after the end of the stream") }
            let expected = world.stretch(position, act.bytes)
            if memcmp(expected.baseAddress!, act.memory.baseAddress!, act.bytes) != 0 {
                return world.tell("a receive holds other bytes than those at position \(position)")
            }
            position += act.bytes
        }
        world.count { $0.bytes += position }
        if position > written { world.tell("\(position) bytes received of \(written)") }
        if hasEnded, !isPeerDone { world.tell("a receive saw an end that nobody made") }
        if hasEnded || isWhole, position != written, !isReset.load(ordering: .acquiring) {
            world.tell("the stream ended after \(position) bytes of \(written)")
        }
    }

    private func compareSends(isWhole: Bool) {
        var position = 0
        for act in sends {
            if act.completions != 1 { return world.tell("a send completed \(act.completions) times") }
            if act.errorCode == 0, act.bytes != act.memory.count {
                return world.tell("a send of \(act.memory.count) bytes completed with \(act.bytes)")
            }
            if act.errorCode != 0, !isExplained(act.errorCode) { world.tell("a send failed: \(act.error!)") }
            // Of a closed connection the peer may miss the last part.
            let count = min(act.bytes, heard.count - position)
            let isSame =
                count == 0
                || heard.withUnsafeBytes {
                    memcmp($0.baseAddress! + position, act.memory.baseAddress!, count) == 0
                }
            if !isSame { return world.tell("the peer read other bytes than were sent, at \(position)") }
            position += count
        }
        world.count { $0.bytes += position }
        if position != heard.count { world.tell("the peer read \(heard.count) bytes of \(position)") }
        let handedOver = sends.reduce(0) { $0 + $1.bytes }
        if isWhole, handedOver != heard.count {
            world.tell("the peer read \(heard.count) bytes of \(handedOver)")
        }
    }
}

// MARK: The players

/// One thread: picks a connection and does something to it, again and again.
private struct Player {
    private let world: World
    private var dice: Dice
    private static let connectionsAtOnce = 4
    /// Steps after which a connection is brought to its end.
    private static let longestLife = 500
    /// Steps that are taken on a connection that is closed or reset already.
    private static let afterlife = 40

    init(_ world: World, _ dice: Dice) {
        self.world = world
        self.dice = dice
    }

    mutating func play(until goal: Int) {
        while world.operations.load(ordering: .relaxed) < goal, !world.isOver {
            do {
                let connection = try world.enter(dice.roll(Player.connectionsAtOnce))
                let older = step(connection)
                if connection.grow(older) > Player.longestLife, world.drop(connection) {
                    connection.finish(orderly: dice.roll(2) == 0)
                } else {
                    world.leave(connection)
                }
            } catch {
                world.tell("\(error)")
            }
        }
    }

    /// Returns by how much the connection has aged.
    private mutating func step(_ connection: Connection) -> Int {
        let lastDays = Player.longestLife - Player.afterlife
        switch dice.roll(1_000) {
        case ..<270: connection.postReceive(&dice)
        case ..<480: connection.postSend(&dice)
        case ..<670: connection.peerWrites(&dice)
        case ..<680: connection.peerSpeaksUrgently()
        case ..<880: connection.peerReads(&dice)
        case ..<960: connection.cancelOne(&dice)
        case ..<990: connection.cancelAll()
        case ..<994: connection.peerShutsDown()
        case ..<997:
            connection.close()
            return lastDays
        default:
            connection.peerResets()
            return lastDays
        }
        return 1
    }
}
