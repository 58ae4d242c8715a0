import CompletionPorts
import CompletionPortsPitfalls
import Kernel
import Stage
import Testing

/// A worker that asks a port when it is told, and remembers the answer.
final class PortWorker: @unchecked Sendable {
    let worker: SteppedWorker
    private let lock = Lock()
    private var answer: Dequeued?

    init(_ name: String) { worker = SteppedWorker(name) }

    /// Has the worker ask the port. Returns at once.
    func ask(_ port: CompletionPort, timeout: Duration? = nil) {
        lock.locked { answer = nil }
        worker.begin { [self] in
            let answer = port.dequeue(timeout: timeout)
            lock.locked { self.answer = answer }
        }
    }

    /// The answer, when it comes in time.
    func take(within patience: Duration = Gate.patience) -> Dequeued? {
        worker.finish(within: patience) ? lock.locked { answer } : nil
    }

    /// The key of the packet that was the answer, when it comes in time.
    func key(within patience: Duration = Gate.patience) -> UInt? {
        if case .completed(let packet) = take(within: patience) { packet.key } else { nil }
    }

    /// Has the worker ask, and returns when it waits: the `number`th of those who wait at the port.
    func waits(at port: CompletionPort, as number: Int, timeout: Duration? = nil) -> Bool {
        ask(port, timeout: timeout)
        return isWaiting(at: port, as: number)
    }

    /// Whether it waits soon, one of `number`.
    func isWaiting(at port: CompletionPort, as number: Int) -> Bool {
        eventually { port.workers.waiting == number && worker.isFastAsleep }
    }
}

/// A port for a test, that takes the driver it is told.
func makePort(_ concurrency: Int, _ driver: DriverKind = .epoll, noticing: Bool = true) throws
    -> CompletionPort
{
    var options = CompletionPort.Options()
    options.driver = driver
    options.noticesBlocking = noticing
    return try CompletionPort(concurrency: concurrency, options: options)
}

/// Keeps a processor busy until the condition holds or the time is over; says which.
@discardableResult
func spin(for patience: Duration = Gate.patience, until condition: () -> Bool = { false }) -> Bool {
    let end = Deadline.after(patience)
    while !end.hasPassed {
        if condition() { return true }
    }
    return condition()
}

extension Dequeued {
    var isTimedOut: Bool { if case .timedOut = self { true } else { false } }
    var isClosed: Bool { if case .closed = self { true } else { false } }
}
