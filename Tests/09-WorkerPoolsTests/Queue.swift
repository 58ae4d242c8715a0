import Contexts
import Kernel
import Stage
import Testing
import WorkerPools

@Suite("Chapter 09: the queue of jobs", .serialized)
struct Chapter09WorkerPoolsQueue {
    let one = ConnectionID.next()
    let other = ConnectionID.next()

    // I9.3
    @Test("First in, first out; full is said, counted, and leaves everything as it was")
    func order() throws {
        let queue = JobQueue(capacity: 3, capacityPerClient: 3)
        for number in 1...3 { try queue.add(Job("\(number)")) }
        #expect(throws: JobError.full(capacity: 3)) { try queue.add(Job("4")) }
        #expect((1...3).map { _ in queue.take()?.command } == ["1", "2", "3"])
        #expect(queue.take() == nil)
        let counters = queue.counters
        #expect((counters.added, counters.refused, counters.peak) == (3, 1, 3))
    }

    // I9.3
    @Test("A client has its share, the program's own jobs and other clients have the rest")
    func share() throws {
        let queue = JobQueue(capacity: 8)
        #expect(queue.capacityPerClient == 2)
        for _ in 1...2 { try queue.add(Job("a", for: one)) }
        #expect(throws: JobError.shareUsed(share: 2)) { try queue.add(Job("a", for: one)) }
        for _ in 1...2 { try queue.add(Job("b", for: other)) }
        for _ in 1...4 { try queue.add(Job("own")) }
        #expect(throws: JobError.full(capacity: 8)) { try queue.add(Job("own")) }
        #expect((queue.count(of: one), queue.count(of: other)) == (2, 2))
        _ = queue.take()
        #expect(queue.count(of: one) == 1)
        try queue.add(Job("a", for: one))
    }

    @Test("The smallest queue, and shares that mean nothing, still work")
    func small() throws {
        for share in [nil, 0, 1, 9] as [Int?] {
            let queue = JobQueue(capacity: 1, capacityPerClient: share)
            #expect(queue.capacityPerClient == 1)
            try queue.add(Job("a", for: one))
            #expect(throws: JobError.self) { try queue.add(Job("b", for: other)) }
            #expect(queue.take()?.command == "a")
            try queue.add(Job("b", for: other))
        }
    }

    // I9.3
    @Test("Who was refused is told when the queue is low and its own share is, once, and not before")
    func low() throws {
        let told = Guarded<[[ConnectionID]]>([])
        let queue = JobQueue(capacity: 8, capacityPerClient: 6) { clients in
            told.locked { $0.append(clients) }
        }
        for _ in 1...6 { try queue.add(Job("a", for: one)) }
        #expect(throws: JobError.shareUsed(share: 6)) { try queue.add(Job("a", for: one)) }
        for _ in 1...2 { try queue.add(Job("b", for: other)) }
        #expect(throws: JobError.full(capacity: 8)) { try queue.add(Job("b", for: other)) }
        #expect(throws: JobError.full(capacity: 8)) { try queue.add(Job("own")) }
        for _ in 1...3 { _ = queue.take() }
        #expect(told.locked { $0 } == [])
        // Half of the queue, and half of each share.
        _ = queue.take()
        #expect(told.locked { $0 } == [[one, other]])
        while queue.take() != nil {}
        #expect(told.locked { $0 } == [[one, other]])
    }

    // I9.3
    @Test("Who has more than half of its share waits for that, in an empty queue, too")
    func lowShare() throws {
        let told = Guarded<[[ConnectionID]]>([])
        let queue = JobQueue(capacity: 100, capacityPerClient: 4) { clients in
            told.locked { $0.append(clients) }
        }
        for _ in 1...4 { try queue.add(Job("a", for: one)) }
        #expect(throws: JobError.self) { try queue.add(Job("a", for: one)) }
        _ = queue.take()
        #expect(told.locked { $0 } == [])
        _ = queue.take()
        #expect(told.locked { $0 } == [[one]])
    }

    // I9.3
    @Test("The program's own work that was refused is told, too")
    func lowOwn() throws {
        let told = Guarded<[[ConnectionID]]>([])
        let queue = JobQueue(capacity: 2) { clients in told.locked { $0.append(clients) } }
        for _ in 1...2 { try queue.add(Job("own")) }
        #expect(throws: JobError.self) { try queue.add(Job("own")) }
        _ = queue.take()
        #expect(told.locked { $0 } == [[]])
    }

    @Test("The jobs of a client that has left are taken back, the others keep their order, and room is told")
    func takeBack() throws {
        let told = Counter()
        let queue = JobQueue(capacity: 6, capacityPerClient: 4) { _ in told.add() }
        for number in 1...3 {
            try queue.add(Job("a\(number)", for: one))
            try queue.add(Job("b\(number)", for: other))
        }
        #expect(throws: JobError.self) { try queue.add(Job("b4", for: other)) }
        #expect(queue.takeBack(one).map(\.command) == ["a1", "a2", "a3"])
        #expect(queue.takeBack(one).isEmpty)
        #expect(queue.count(of: one) == 0)
        #expect(told.value == 0)
        #expect(queue.take()?.command == "b1")
        #expect(told.value == 1)
        #expect(queue.take()?.command == "b2")
        #expect(queue.take()?.command == "b3")
    }

    @Test("Closed for adding, it hands out what is there, and then says so without waiting")
    func closed() throws {
        let queue = JobQueue()
        try queue.add(Job("last"))
        queue.accepts = false
        #expect(throws: JobError.closed) { try queue.add(Job("late")) }
        #expect(queue.takeNext()?.command == "last")
        #expect(queue.takeNext() == nil)
        queue.accepts = true
        try queue.add(Job("again"))
        #expect(queue.take()?.command == "again")
    }

    @Test("To wait for a job ends with a job, with the time, and with the queue")
    func waiting() async throws {
        try await onAThread {
            let queue = JobQueue()
            #expect(queue.takeNext(until: .after(.milliseconds(5))) == nil)
            let taken = Guarded<[String?]>([])
            let (asks, done) = (Gate(), Gate())
            let thread = startThread("taker") {
                asks.open()
                for _ in 1...2 {
                    let job = queue.takeNext()
                    taken.locked { $0.append(job?.command) }
                }
                done.open()
            }
            asks.pass()
            try queue.add(Job("here"))
            #expect(eventually { taken.locked { $0.count } == 1 })
            queue.accepts = false
            #expect(done.pass())
            thread.join()
            #expect(taken.locked { $0 } == ["here", nil])
        }
    }
}
