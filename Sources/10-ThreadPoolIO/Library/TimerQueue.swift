import Kernel

/// Something that is due at a time: a timer, or the end of a wait. (For a wait without an end, never.)
public class TimedObject: PoolObject, @unchecked Sendable {
    // Guarded by the pool's monitor.
    /// Not before this moment.
    var due = Deadline.never
    /// A thread need not wake up for it before this moment.
    var latest = Deadline.never
    /// Where it is in the queue; -1 when it is not.
    fileprivate var place = -1

    var isQueued: Bool { place >= 0 }

    /// Under the monitor, when it is due and out of the queue: the call that is to be posted, if any.
    func expire(_ queue: inout TimerQueue) -> Call? { nil }
}

/// All that is due some time, the next one first: a heap, in which each element knows its place.
struct TimerQueue {
    private var heap: [TimedObject] = []

    var isEmpty: Bool { heap.isEmpty }

    /// When a thread has to look again.
    var next: Deadline { heap.first?.latest ?? .never }

    mutating func insert(_ object: TimedObject, due: Deadline, window: Duration = .zero) {
        remove(object)
        object.due = due
        object.latest = due.advanced(by: window)
        object.place = heap.count
        heap.append(object)
        rise(from: object.place)
    }

    mutating func remove(_ object: TimedObject) {
        let place = object.place
        guard place >= 0 else { return }
        object.place = -1
        let last = heap.removeLast()
        guard last !== object else { return }
        put(last, at: place)
        rise(from: place)
        sink(from: last.place)
    }

    /// Takes out what is due, and returns the calls that come of it. Never early: the clock is asked, whatever has
    /// woken the caller.
    mutating func takeDue() -> [PoolObject.Call] {
        guard !next.isNever else { return [] }
        var calls: [PoolObject.Call] = []
        let now = Deadline.now
        while let first = heap.first, first.due <= now {
            remove(first)
            if let call = first.expire(&self) { calls.append(call) }
        }
        return calls
    }

    mutating func removeAll() -> [TimedObject] {
        for object in heap { object.place = -1 }
        defer { heap = [] }
        return heap
    }

    private mutating func put(_ object: TimedObject, at place: Int) {
        heap[place] = object
        object.place = place
    }

    private mutating func rise(from start: Int) {
        var place = start
        let object = heap[place]
        while place > 0, object.latest < heap[(place - 1) / 2].latest {
            put(heap[(place - 1) / 2], at: place)
            place = (place - 1) / 2
        }
        put(object, at: place)
    }

    private mutating func sink(from start: Int) {
        var place = start
        let object = heap[place]
        while true {
            var child = 2 * place + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].latest < heap[child].latest { child += 1 }
            guard heap[child].latest < object.latest else { break }
            put(heap[child], at: place)
            place = child
        }
        put(object, at: place)
    }
}
