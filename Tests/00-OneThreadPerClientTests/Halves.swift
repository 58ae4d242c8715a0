import Kernel
import OneThreadPerClient
import OneThreadPerClientPitfalls
import Stage
import Testing

/// A pitfall of this chapter, by its name.
func pitfall(_ slug: String) throws -> Pitfall {
    try #require(Chapter00.pitfalls.first { $0.slug == slug })
}

/// A kind of server, on the driver that it uses.
struct Variant: Sendable, CustomStringConvertible {
    let kind: ServerKind
    let driver: DriverKind

    var description: String { kind == .completion ? "\(kind) on \(driver)" : kind.rawValue }

    func start(_ limits: Limits = Limits()) throws(SystemError) -> EchoServer {
        try kind.start(limits: limits, driver: driver)
    }

    static let all = ServerKind.allCases.flatMap { kind in
        (kind == .completion ? DriverKind.permitted : [.epoll]).map { Variant(kind: kind, driver: $0) }
    }
    /// Those who can serve a second client while the first one stays.
    static let manyAtOnce = all.filter { $0.kind != .turn }
}
