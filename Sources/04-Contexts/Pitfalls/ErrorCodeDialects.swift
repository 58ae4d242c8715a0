import CompletionPorts
import Contexts
import Glibc
import Kernel
import Stage

/// ⚠︎ Broken on purpose: knows a reset by one number.
struct BrokenClassifier {
    func isReset(_ error: SystemError) -> Bool { error.code == ECONNRESET }
}

/// The same reset arrives as different codes from a call and from a packet.
public enum ErrorCodeDialects {
    /// For the demo and the tests.
    public static let pitfall = Pitfall(
        slug: "error-code-dialects",
        title: "one reset has several numbers, and the logic that knows one of them misses the others",
        broken: { driver in
            let errors = try resets(driver)
            let known = errors.filter { BrokenClassifier().isReset($0.error) }.count
            return Observation(
                happened: known > 0 && known < errors.count,
                lines: errors.map { "\($0.from): \($0.error)" } + [
                    "\(errors.count) voices of one reset; recognised: \(known)"
                ])
        },
        fixed: { driver in
            let errors = try resets(driver)
            let reasons = errors.map { CloseReason($0.error) }
            let others = table.filter { CloseReason(SystemError($0.0, attempted: "")) != $0.1 }
            return Observation(
                happened: reasons.contains { $0 != .reset } || !others.isEmpty,
                lines: zip(errors, reasons).map { "\($0.from): \($0.error) → \($1)" } + [
                    "\(table.count) more numbers of the system, classified as expected: \(table.count - others.count)"
                ])
        })

    /// One reset, as it is told by a packet, by a plain call to receive, by one to send.
    private static func resets(_ driver: DriverKind) throws -> [(from: String, error: SystemError)] {
        var voices: [(from: String, error: SystemError)] = []
        let port = try CompletionPort.on(driver)
        let pair = try Pair()
        try port.associate(pair.server, key: 1)
        let request = Request()
        try pair.server.receive(request, into: request.memory)
        try pair.client.abort()
        if let error = try port.next().error { voices.append(("a packet", error)) }
        voices += complaints("a call to send, after that") { () throws(SystemError) in
            try pair.server.say("x")
        }
        port.close()

        let plain = try Pair()
        try plain.client.abort()
        voices += complaints("a call to receive") { () throws(SystemError) in
            _ = try plain.server.receiveNow(into: request.memory)
        }
        return voices
    }

    private static func complaints(_ from: String, _ call: () throws(SystemError) -> Void)
        -> [(from: String, error: SystemError)]
    {
        do throws(SystemError) {
            try call()
            return []
        } catch {
            return [(from, error)]
        }
    }

    private static let table: [(Int32, CloseReason)] = [
        (EPIPE, .reset), (ECONNABORTED, .reset), (ETIMEDOUT, .reset), (EHOSTUNREACH, .reset),
        (ECANCELED, .cancelled), (EBADF, .cancelled), (ECONNREFUSED, .refused), (EMFILE, .outOfResources),
        (ENFILE, .outOfResources), (ENOBUFS, .outOfResources), (ENOMEM, .outOfResources),
        (EFAULT, .bug(EFAULT)), (EINVAL, .bug(EINVAL)), (EALREADY, .bug(EALREADY)),
    ]
}
