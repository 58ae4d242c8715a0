import Glibc
import Kernel
import Stage
import Testing

extension KernelSuite {
    @Suite("receive and send") struct Streams {
        @Test("a server that answers with what it got", arguments: DriverKind.permitted)
        func echo(kind: DriverKind) throws {
            try withCollector(kind) { collector in
                let (socket, peer) = try connection(collector)
                for round in 0..<50 {
                    let receive = Buffer(64)
                    try socket.receive(receive)
                    peer.send("hello \(round)")
                    let received = try #require(collector.next())
                    #expect(received.operation === receive && received.code == 0 && received.key == 7)
                    #expect(receive.text == "hello \(round)" && !receive.isPending)
                    let answer = Buffer(receive.text)
                    try socket.send(answer)
                    let sent = try #require(collector.next())
                    #expect(sent.operation === answer && sent.bytes == answer.area.count)
                    #expect(peer.text(answer.area.count) == "hello \(round)")
                }
            }
        }
    }
}
