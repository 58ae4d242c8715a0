import AsyncEvents
import Glibc
import Kernel
import Stage
import Testing
import ThreadPoolIO

@Suite("Chapter 10: random schedules", .serialized)
struct Chapter10ThreadPoolIOSchedules {
    @Test(
        "I10.3, I10.5: threads do everything at once; the account ends at zero, and nothing is called after the end",
        arguments: DriverKind.permitted, [1, 2, 3])
    func everything(driver: DriverKind, seed: UInt64) async throws {
        try await onAThread {
            let pool = try pool(driver, minimum: 0, maximum: 4, idleTime: .milliseconds(2))
            let scenes = try (0..<3).map { try Scene(pool, Event(.automatic), seed &* 31 &+ UInt64($0)) }
            inThreads(scenes.count) { scenes[$0].play(turns: 600) }
            for scene in scenes { #expect(scene.late.value == 0) }
            try pool.closeAndWait()
            let counters = pool.counters
            #expect(counters.threads == 0 && counters.running == 0 && counters.waiting == 0, "\(counters)")
            #expect(counters.strays == 0 && counters.peak <= 4, "\(counters)")
        }
    }
}

/// One of each kind, and a thread that does with them whatever comes into its head.
private final class Scene: Sendable {
    let late = Counter()
    private let called = Counter()
    private let isFreed = Gate()
    private let group = PoolGroup()
    private let (work, timer, wait): (PoolWork, PoolTimer, PoolWait)
    private let (event, io, pair, seed): (Event, PoolIO<Socket>, Pair, UInt64)

    init(_ pool: ThreadPool, _ event: Event, _ seed: UInt64) throws {
        let (late, called, isFreed, pair) = (late, called, isFreed, try Pair())
        let note: @Sendable (CallbackInstance) -> Void = { instance in
            if isFreed.isOpen { late.add() }
            if called.add() % 16 == 0 { usleep(500) }
            if called.value % 32 == 0 { _ = instance.mayRunLong() }
        }
        work = PoolWork(pool, group: group, note)
        timer = PoolTimer(pool, group: group, note)
        wait = PoolWait(pool, group: group) { instance, _ in note(instance) }
        io = try PoolIO(pair.server, pool, group: group) { instance, _, _, _ in note(instance) }
        (self.event, self.pair, self.seed) = (event, pair, seed)
    }

    func play(turns: Int) {
        var state = seed | 1
        for _ in 0..<turns {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let choice = state >> 33
            switch choice % 11 {
            case 0, 1: try? work.submit()
            case 2: try? timer.set(after: .microseconds(Int64(choice >> 4) % 2_000))
            case 3: try? timer.set(due: .now, period: .microseconds(300), window: .microseconds(100))
            case 4: timer.cancel()
            case 5: try? wait.set(event, until: choice & 64 == 0 ? .never : .after(.microseconds(200)))
            case 6: event.set()
            case 7: wait.cancel()
            case 8:
                let request = Request()
                try? io.receive(request, into: request.memory)
            case 9: try? pair.client.say("x")
            default:
                let objects: [PoolObject] = [work, wait]
                try? objects[Int(choice >> 5) % 2].waitForCallbacks(cancelling: choice & 16 == 0)
            }
        }
        pair.server.close()
        try? group.close(cancelling: seed & 2 == 0)
        isFreed.open()
        usleep(2_000)
    }
}
