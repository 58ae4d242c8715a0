import Glibc
import Kernel

/// An operation whose completion calls a routine, on the thread that posted it.
///
/// The routine runs later, in an alertable wait of that thread; never inside the call that posts (I1.6), even if the
/// operation was complete by then. In its routine a request may be posted again.
public final class RoutineRequest: Overlapped, @unchecked Sendable {
    /// What runs on the thread that posted. It may use whatever belongs to that thread.
    public typealias Routine = (RoutineRequest) -> Void

    private let lock = Lock()
    private var routine: Routine?

    /// Posts this request, and has the routine run on this thread when it has completed:
    ///
    ///     try request.post(file.read(request, into: buffer)) { request in … }
    ///
    /// - Throws: what posting throws, EINVAL when the handle belongs to a port (a completion goes to one place), and
    ///   EALREADY while the last routine has not run. Then the routine will not run.
    ///
    /// Win32 counterpart: `ReadFileEx`, `WriteFileEx`; `WSARecv` and `WSASend` with a completion routine.
    public func post(
        _ start: @autoclosure () throws(SystemError) -> Void, then routine: @escaping Routine
    ) throws(SystemError) {
        let isFree = lock.locked {
            if self.routine != nil || isPending { return false }
            self.routine = routine
            return true
        }
        guard isFree else { throw SystemError(EALREADY, attempted: "post a request that is still under way") }
        routineTarget = APCQueue.current
        do {
            try start()
        } catch {
            _ = disarm()
            throw error
        }
    }

    /// The routine that is to run now, once.
    func disarm() -> Routine? {
        routineTarget = nil
        return lock.locked {
            defer { routine = nil }
            return routine
        }
    }
}
