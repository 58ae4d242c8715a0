import Framing
import Kernel

/// How a request is answered: a number, and what it means in words.
struct Status: Error, Equatable {
    let number: Int
    let words: String

    private init(_ number: Int, _ words: String) { (self.number, self.words) = (number, words) }

    static let ok = Status(200, "OK")
    static let badRequest = Status(400, "Bad Request")
    static let notFound = Status(404, "Not Found")
    static let notAllowed = Status(405, "Method Not Allowed")
    static let timeout = Status(408, "Request Timeout")
    static let misdirected = Status(421, "Misdirected Request")
    static let headTooLarge = Status(431, "Request Header Fields Too Large")
    static let notThisVersion = Status(505, "HTTP Version Not Supported")
}

/// The head of a request, as far as this server wants to know it.
struct Request {
    private(set) var method = ""
    /// Without a query.
    private(set) var path = ""
    /// Whom it is for: a name and perhaps a port. Nil if it does not say, as HTTP/1.0 need not.
    private(set) var host: String?
    /// The connection ends with the answer.
    private(set) var closes = false
    private(set) var hasBody = false

    /// Reads a head.
    ///
    /// - Throws: How it is refused when it is none.
    init(_ head: RawSpan) throws(Status) {
        let bytes = head.withUnsafeBytes { Array($0) }
        var lines = bytes.split(separator: RequestHeads.lf, omittingEmptySubsequences: false)
            .map { $0.last == RequestHeads.cr ? $0.dropLast() : $0 }
        lines.removeLast()
        // Neither a line's end that only one of two programs sees, nor a byte that ends a text in C.
        let isText = lines.joined().allSatisfy { $0 >= 0x20 && $0 != 0x7f || $0 == UInt8(ascii: "\t") }
        guard isText else { throw .badRequest }
        let isOld = try readRequestLine(lines[0])
        closes = isOld
        for line in lines.dropFirst() where !line.isEmpty { try readField(line) }
        if host == nil, !isOld { throw .badRequest }
    }

    private mutating func readRequestLine(_ line: ArraySlice<UInt8>) throws(Status) -> Bool {
        let words = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
        guard words.count == 3, words[0].allSatisfy(\.isInToken), !words[0].isEmpty, !words[1].isEmpty
        else { throw .badRequest }
        let version = Array(words[2])
        guard version.count == 8, version.starts(with: "HTTP/".utf8), version[5].isDigit, version[7].isDigit,
            version[6] == UInt8(ascii: ".")
        else { throw .badRequest }
        guard version[5] == UInt8(ascii: "1") else { throw .notThisVersion }
        method = String(decoding: words[0], as: UTF8.self)
        path = String(decoding: words[1].prefix { $0 != UInt8(ascii: "?") }, as: UTF8.self)
        return version[7] == UInt8(ascii: "0")
    }

    private mutating func readField(_ line: ArraySlice<UInt8>) throws(Status) {
        // A line that goes on from the one before begins with a space, and has no name.
        let name = line.prefix { $0 != UInt8(ascii: ":") }
        guard !name.isEmpty, name.count < line.count, name.allSatisfy(\.isInToken) else { throw .badRequest }
        let value = String(decoding: line.dropFirst(name.count + 1), as: UTF8.self).trimmed
        switch String(decoding: name, as: UTF8.self).lowercased() {
        case "host":
            guard host == nil else { throw .badRequest }
            host = value
        case "transfer-encoding": throw .badRequest
        case "content-length": hasBody = hasBody || value.isEmpty || value.contains { $0 != "0" }
        case "connection":
            for word in value.split(separator: ",") {
                switch word.trimmed.lowercased() {
                case "close": closes = true
                case "keep-alive": closes = false
                default: break
                }
            }
        default: break
        }
    }

    /// How it is answered, `ok` being only the beginning of it.
    ///
    /// - Parameter names: The hosts that this server is, in small letters.
    func judged(for names: [String]) -> Status {
        guard isFor(names) else { return .misdirected }
        guard method == "GET" || method == "HEAD" else { return .notAllowed }
        if hasBody { return .badRequest }
        return ["/", "/statistics", "/events"].contains(path) ? .ok : .notFound
    }

    /// A page of somebody else's may have the reader's browser ask this server, under a name that it has made to lead here. The
    /// browser says under which. The port does not matter: it is no part of that trick, and a tunnel may change it.
    private func isFor(_ names: [String]) -> Bool {
        guard let host else { return true }
        let lowered = host.lowercased()
        return names.contains { name in
            guard lowered.hasPrefix(name) else { return false }
            let rest = lowered.dropFirst(name.count)
            return rest.isEmpty || rest.first == ":" && rest.dropFirst().utf8.allSatisfy(\.isDigit)
        }
    }
}

extension UInt8 {
    fileprivate var isDigit: Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self) }

    /// What names of methods and fields are made of.
    fileprivate var isInToken: Bool {
        isDigit || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(self | 0x20)
            || "!#$%&'*+-.^_`|~".utf8.contains(self)
    }
}

extension StringProtocol {
    /// Without spaces and tabs around it.
    fileprivate var trimmed: String {
        let start = drop { $0 == " " || $0 == "\t" }
        return String(start.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
    }
}
