import Contexts
import Kernel

/// How many connections each address has. A value of who has a lock.
public struct AddressLimits: Sendable {
    /// The most of one address; nil for no limit.
    public let limit: Int?
    private var present: [Address: Int] = [:]

    /// Nobody yet.
    public init(limit: Int?) { self.limit = limit }

    /// Takes a place for a connection from there; false when that address has all it may have.
    public mutating func enter(_ address: Address) -> Bool {
        let host = AddressLimits.host(address)
        let count = present[host, default: 0]
        if let limit, count >= limit { return false }
        present[host] = count + 1
        return true
    }

    /// Gives a place back: with the address that was noted when it was taken. One that is asked for at the end may not be there
    /// any more. (I11.2)
    public mutating func leave(_ address: Address) {
        let host = AddressLimits.host(address)
        let count = present[host, default: 0] - 1
        present[host] = count > 0 ? count : nil
    }

    /// Connections from there.
    public func count(of address: Address) -> Int { present[AddressLimits.host(address)] ?? 0 }

    /// The machine, whatever its port, and by IPv4 whichever listener it has come to.
    private static func host(_ address: Address) -> Address {
        var host = address.unmapped
        host.port = 0
        return host
    }
}

/// Who may come in, and the accounts of who did: all under one lock, so that they agree at every moment. (I11.1)
final class Gate: @unchecked Sendable {
    private let maximum: Int
    private let lock = Lock()
    // Guarded by the lock.
    private var addresses: AddressLimits
    private var list: BanList
    private var accounts = Statistics()

    init(_ options: EndpointOptions) {
        maximum = options.maximumConnections
        addresses = AddressLimits(limit: options.maximumPerAddress)
        list = options.bans
    }

    var bans: BanList {
        get { lock.locked { list } }
        set { lock.locked { list = newValue } }
    }

    /// What is counted here; the rest of it is 0.
    var now: Statistics { lock.locked { accounts } }

    /// Counts something else that happens seldom.
    func count(_ change: (inout Statistics) -> Void) { lock.locked { change(&accounts) } }

    /// Takes a place for a client, unless there is a reason against it; that is counted.
    func enter(_ remote: Address) -> Refusal? {
        lock.locked {
            if list.contains(remote) { return refuse(.banned) }
            if accounts.connections >= maximum { return refuse(.limit) }
            if !addresses.enter(remote) { return refuse(.perAddress) }
            take()
            accounts.accepted += 1
            return nil
        }
    }

    private func refuse(_ why: Refusal) -> Refusal {
        accounts.refused[why, default: 0] += 1
        return why
    }

    private func take() {
        accounts.connections += 1
        accounts.peak = max(accounts.peak, accounts.connections)
    }

    /// Takes a place for a connection that this side makes.
    func enterOutward() -> Bool {
        lock.locked {
            guard accounts.connections < maximum else { return false }
            take()
            return true
        }
    }

    /// Somebody for whom a place was taken did not come in after all.
    func takeBack(_ remote: Address, _ why: Refusal) {
        lock.locked {
            accounts.connections -= 1
            accounts.accepted -= 1
            addresses.leave(remote)
            _ = refuse(why)
        }
    }

    /// A connection is over. `remote` is the address that was noted when it came, nil for one that this side has made; `reason`
    /// is nil for one that never stood.
    func leave(_ remote: Address?, _ reason: EndReason?) {
        lock.locked {
            accounts.connections -= 1
            if let remote { addresses.leave(remote) }
            if let reason { accounts.ends[reason, default: 0] += 1 }
        }
    }
}
