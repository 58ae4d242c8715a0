import Kernel

extension Address {
    /// This machine by IPv4, and by IPv6 unless that is switched off, as it is in many containers.
    public static let loopbacks: [Address] = {
        let both = [Address.loopback(), .loopback6()]
        return both.filter { (try? Socket(boundTo: $0)) != nil }
    }()
}
