import Contexts
import FileTransfer
import Framing
import Kernel
import Reordering
import Synchronization

/// Listeners, and who is let in.
extension Run {
    /// Listens with frames of one kind, and makes of each client that is let in what `make` says.
    func listen<Codec: FrameCodec>(
        on address: Address, _ codec: Codec,
        _ make: @escaping @Sendable (_ run: Run, _ client: Address) -> any StreamHandler
    ) throws(SystemError) -> Address {
        let actual = try hub.listen(
            on: address, backlog: options.backlog,
            admit: { [self] remote, local in admit(remote, local, codec) },
            lost: { [self] remote in
                guard let remote else { return }
                gate.takeBack(remote, .resources)
                handler.refused(remote.unmapped, .resources)
            },
            handler: { [self] stream in make(self, stream.remoteAddress!) })
        applyBans()
        return actual
    }

    func framed<Codec: FrameCodec>(_ codec: Codec, _ handler: any FrameHandler<Codec>) -> any StreamHandler {
        FramedConnection(codec, handler: handler, ledger: ledger, patience: options.limits.close)
    }

    /// A session, with files around it where its frames carry them.
    func handler<Codec: FrameCodec>(_ session: FramedSession<Codec>) -> any FrameHandler<Codec> {
        guard let files, let framed = session as? FramedSession<LengthPrefixed> else { return session }
        let transfer = FileTransfer(files, around: framed)
        session.files.locked { $0 = transfer }
        return transfer as! any FrameHandler<Codec>
    }

    /// The most bytes of a message that can be acknowledged in these frames; nil where none can.
    func longestNumbered<Codec: FrameCodec>(_ codec: Codec) -> Int? {
        guard options.acknowledges, let frames = codec as? LengthPrefixed else { return nil }
        return frames.maximumLength - Delivery.head
    }

    /// A message of the program's as it is on the wire: with a byte in front where others have one that says whose they are.
    func frame<Codec: FrameCodec>(_ message: RawSpan, _ codec: Codec) throws(FrameError) -> [UInt8] {
        var buffer = SplitBuffer(limit: codec.maximumFrameLength)
        if codec is LengthPrefixed, options.acknowledges || files != nil {
            try codec.append(tag: Tag.program, message, to: &buffer)
        } else {
            try codec.append(message, to: &buffer)
        }
        return buffer.withBytes { bytes in bytes.withUnsafeBytes { Array($0) } }
    }

    /// A worker has a client: is it let in? Everything that was done for it is undone when the program says no. (I11.1)
    private func admit<Codec: FrameCodec>(_ remote: Address?, _ local: Address?, _ codec: Codec) -> Admission
    {
        // It is gone before its address could be asked for.
        guard let remote = remote?.unmapped else { return .drop }
        func words(_ text: [UInt8]) -> Admission {
            .refuse((try? frame(text.span.bytes, codec)) ?? [])
        }
        if let why = gate.enter(remote) {
            handler.refused(remote, why)
            say(.warnings, "\(remote): not let in (\(why.rawValue))")
            if why == .banned, options.refusal != .words { return .drop }
            return words(Array(why.words(options).utf8))
        }
        let answer = handler.admits(remote, local)
        if case .welcome = answer { return answer }
        gate.takeBack(remote, .handler)
        handler.refused(remote, .handler)
        if case .refuse(let text) = answer { return words(text) }
        return .drop
    }

    /// Has the listeners drop what comes from the banned, where the system lets them.
    func applyBans() {
        guard options.refusal == .silent else { return }
        let list = gate.bans
        var isSilent = true
        do throws(SystemError) {
            if !list.isEmpty, list.filter == nil {
                throw SystemError.invalid("put so many bans into a filter")
            }
            for listener in hub.listening {
                if let filter = list.filter {
                    try listener.socket.attach(filter)
                } else {
                    try listener.socket.detachFilter()
                }
            }
        } catch {
            isSilent = false
            if !list.isEmpty {
                say(.warnings, "silent bans need CAP_NET_ADMIN (\(error)); banned clients are reset instead")
            }
        }
        gate.count { $0.bansAreSilent = isSilent && !list.isEmpty }
    }
}

extension FileTransfer {
    /// The session that it carries files for.
    var session: Session? { handler as? Session }
}
