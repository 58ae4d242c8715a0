import Kernel

extension CompletionPort {
    /// Takes over a handle that another port has, or gives one of this port's own another key. Nothing of it may be under
    /// way: no operation is pending on it, and the former port has no packet with its key. Operations are not counted for
    /// that; the former port looks through what it holds, once, now.
    ///
    /// Packets that a worker has taken out already are the caller's to know of. So code that moves a connection waits, by its
    /// own account, until each of its operations has been dequeued.
    ///
    /// - Throws: EBUSY when something is under way, EINVAL when the handle belongs to no port, EBADF when it or this port
    ///   is closed. Then the handle is where it was.
    ///
    /// Win32 counterpart: `NtSetInformationFile` with `FileReplaceCompletionInformation` (Windows 8.1).
    public func reassociate(_ handle: Handle, key: UInt) throws(SystemError) {
        let isOpen = lock.locked {
            hasHandles = true
            return !isClosed
        }
        guard isOpen else { throw SystemError.closed("reassociate with a closed port") }
        try handle.reassociate(with: self, key: key, driver: driver)
    }

    /// Under the lock: whether such a packet is in the queue, promised to a worker in the driver, or handed to a
    /// parked worker that has not come back with it.
    func hasPackets(withKey key: UInt) -> Bool {
        queue.contains { $0.key == key } || promised.contains { $0.key == key }
            || tied.contains {
                if case .packet(let packet) = $0.release { return packet.key == key }
                return false
            }
    }
}
