import Glibc

extension Handle {
    /// Sends every later completion of a handle that has a port to another one, under another key. What has completed
    /// before goes to the former port. So nothing may be under way: neither an operation that is pending on the handle, nor
    /// a packet with its key in the former port, whichever handle with that key it came from.
    ///
    /// A packet that a thread is just bringing to the former port is not seen: the caller has to know, from its own account,
    /// that each of its operations has been dequeued.
    ///
    /// - Throws: EBUSY when something is under way, EINVAL when the handle belongs to no port, EBADF when it is closed,
    ///   ENOSPC or ENOMEM when the driver cannot take it: then it is where it was.
    ///
    /// Win32 counterpart: `FileReplaceCompletionInformation` (Windows 8.1).
    public final func reassociate(with target: CompletionTarget, key: UInt, driver: Driver)
        throws(SystemError)
    {
        let former = try locked { state throws(SystemError) in
            guard !state.pointee.closed else {
                throw SystemError(EBADF, attempted: "reassociate a closed handle")
            }
            guard let port = state.pointee.target else {
                throw SystemError(EINVAL, attempted: "reassociate a handle that belongs to no port")
            }
            guard state.isIdle, awaitingFirstData.isEmpty, !port.holdsPackets(withKey: state.pointee.key)
            else {
                throw SystemError(EBUSY, attempted: "reassociate a handle with an operation under way")
            }
            let former = (port, state.pointee.driver)
            try state.move(to: driver)
            state.pointee.target = target
            state.pointee.key = key
            return former
        }
        // Not let go under the lock: these may be the last references.
        withExtendedLifetime(former) {}
    }
}
