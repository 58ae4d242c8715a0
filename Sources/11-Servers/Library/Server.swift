import Kernel

/// What a server chooses.
public struct ServerOptions: Sendable {
    /// Where it listens; port 0 for any that is free.
    public var addresses: [Address] = [.loopback()]
    /// Everything else.
    public var endpoint = EndpointOptions()

    /// The defaults.
    public init() {}
}

/// An endpoint that listens from its start on. It may connect as well.
public final class Server: Endpoint, @unchecked Sendable {
    private let places: [Address]

    /// A server that is not started.
    public init(_ options: ServerOptions = ServerOptions(), handler: any EndpointHandler) {
        places = options.addresses
        super.init(options.endpoint, handler: handler)
    }

    override func open() throws(EndpointError) {
        for place in places { try listen(on: place, codec: codec) }
    }

    /// The first of its addresses, while it listens.
    public var address: Address? { addresses.first }
}
