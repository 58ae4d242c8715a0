import Framing
import Kernel
import Servers

/// What the server does: each line comes back in capitals. One object for all clients.
final class Capitals: EndpointHandler {
    func received(_ message: RawSpan, _ session: Session) {
        guard let line = try? message.text(at: 0, bytes: message.byteCount) else { return session.finish() }
        try? session.reply(line.uppercased())
    }

    func log(_ line: String) { print(line) }
}

var options = ServerOptions()
// It speaks in lines only, and listens for them below.
options.addresses = []
options.endpoint.maximumConnections = 100
options.endpoint.maximumPerAddress = 2
options.endpoint.limits.handshake = .seconds(5)
options.endpoint.limits.idle = .seconds(60)
options.endpoint.log = .information

let server = Server(options, handler: Capitals())
try server.start()
let address = try server.listen(on: .loopback(port: 4000), codec: Lines(maximumLength: 200))
print("listening on \(address)")
while let line = readLine(), line != "quit" {}
print(try server.stop())
