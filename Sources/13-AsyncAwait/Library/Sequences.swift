import Framing
import Glibc
import Kernel
import Reordering

extension AsyncConnection {
    /// The stream, as it comes. Each chunk is the loop's until it asks for the next one. Nothing is read ahead beyond the
    /// connection's pending reads. (I13.6) One loop at a time: a second one gets EALREADY.
    ///
    /// It ends with the stream; a failure is thrown.
    public var chunks: Chunks { Chunks(connection: self) }

    /// A connection's chunks.
    public struct Chunks: AsyncSequence, Sendable {
        let connection: AsyncConnection

        /// Begins to read.
        public func makeAsyncIterator() -> Iterator { Iterator(connection) }

        /// Who reads. There is one for each connection at a time.
        public final class Iterator: AsyncIteratorProtocol {
            private let connection: AsyncConnection
            private let isOnly: Bool

            init(_ connection: AsyncConnection) {
                self.connection = connection
                isOnly = connection.claim()
            }

            deinit { if isOnly { connection.disclaim() } }

            /// The next chunk; nil at the end.
            public func next(
                isolation: isolated (any Actor)? = #isolation
            ) async throws(SystemError) -> Chunk? {
                guard isOnly else {
                    throw SystemError(EALREADY, attempted: "receive while another loop reads this connection")
                }
                return try await connection.next(isolation: isolation)
            }
        }
    }

    /// The messages of the stream, each as a copy. The messages of one chunk are read at once, and no further chunk before they
    /// have been asked for.
    ///
    /// It ends with a stream that ends between two messages. Everything else is thrown, behind the messages before it: a
    /// `FrameError` for what is no message, a `SystemError` for what has become of the connection.
    public func frames<Codec: FrameCodec>(_ codec: Codec) -> Frames<Codec> {
        Frames(chunks: chunks, codec: codec)
    }

    /// A connection's messages.
    public struct Frames<Codec: FrameCodec>: AsyncSequence, Sendable {
        let chunks: Chunks
        let codec: Codec

        /// Begins to read.
        public func makeAsyncIterator() -> Iterator { Iterator(chunks.makeAsyncIterator(), codec) }

        /// Who reads.
        public final class Iterator: AsyncIteratorProtocol {
            private let chunks: Chunks.Iterator
            private let reader: FrameReader<Codec>
            private var messages = CircularQueue<[UInt8]>(capacity: 4)
            /// What is wrong with the stream, to be told when its turn has come.
            private var failure: FrameError?
            private var hasEnded = false

            init(_ chunks: Chunks.Iterator, _ codec: Codec) {
                self.chunks = chunks
                reader = FrameReader(codec)
            }

            /// The next message; nil at the end.
            public func next(isolation: isolated (any Actor)? = #isolation) async throws -> [UInt8]? {
                while true {
                    if let message = messages.popFirst() { return message }
                    if let failure { throw failure }
                    if hasEnded { return nil }
                    read(try await chunks.next(isolation: isolation))
                }
            }

            private func read(_ chunk: Chunk?) {
                do throws(FrameError) {
                    if let chunk {
                        try reader.read(chunk.contents.bytes) { message in
                            messages.append(message.withUnsafeBytes { Array($0) })
                        }
                    } else {
                        hasEnded = true
                        try reader.endOfStream()
                    }
                } catch {
                    failure = error
                }
            }
        }
    }

    /// Sends a message as one frame, and waits as `send` does.
    ///
    /// - Throws: EMSGSIZE when the codec cannot frame it; what `send` throws.
    public func send<Codec: FrameCodec>(
        _ message: [UInt8], as codec: Codec, isolation: isolated (any Actor)? = #isolation
    ) async throws(SystemError) {
        var frame = SplitBuffer(limit: codec.maximumFrameLength)
        guard (try? codec.append(message.span.bytes, to: &frame)) != nil else {
            throw SystemError(EMSGSIZE, attempted: "frame \(message.count) bytes")
        }
        let bytes = frame.withBytes { $0.withUnsafeBytes { Array($0) } }
        try await send(bytes, isolation: isolation)
    }
}
