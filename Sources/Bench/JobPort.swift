import CompletionPorts
import Kernel

/// The question that readers ask: why not a second completion port, as the queue of jobs?
final class JobPort: Sendable {
    private final class Work: Overlapped, @unchecked Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    private let group: WorkerGroup

    init(workers: Int) throws(SystemError) {
        group = try WorkerGroup(workers, on: CompletionPort(concurrency: workers)) { packet, _ in
            (packet.operation as? Work)?.body()
        }
    }

    func add(_ body: @escaping @Sendable () -> Void) throws(SystemError) {
        try group.port.post(operation: Work(body))
    }

    func stop() { group.stop() }
}
