import Stage

/// One stop of the tour: a chapter's demonstration, a program of its own that is built beside this one.
struct Stop: Sendable {
    /// The chapter's number as the book writes it: `02`.
    let number: String
    let title: String
    /// The program's name, which is what the reader types after `swift run`.
    let product: String
    /// What there is to see, in one line.
    let sight: String
    /// What it is told, so that no stop takes longer than 8 seconds on two quiet processors.
    var arguments: [String] = []

    /// Every chapter, in order.
    static let all = [
        Stop(
            number: "00", title: "One thread per client", product: "00-one-thread-per-client",
            sight: "five ways to serve the same clients, and what each costs while nobody speaks"),
        Stop(
            number: "01", title: "Async events", product: "01-async-events",
            sight: "one file, read with 1, 4 and 16 requests in flight"),
        Stop(
            number: "02", title: "Completion ports", product: "02-completion-ports",
            sight: "nine steps of wake order, a blocked worker, an echo server on one port"),
        Stop(
            number: "03", title: "Preposted accepts", product: "03-preposted-accepts",
            sight: "a burst against ten accepts, and an attack of silent clients"),
        Stop(
            number: "04", title: "Contexts", product: "04-contexts",
            sight: "clients that leave at random: freed memory is touched, and every counter ends at zero"),
        Stop(
            number: "05", title: "Reordering", product: "05-reordering",
            sight: "the bytes of one stream, read by two workers: swapped, and in order with numbers"),
        Stop(
            number: "06", title: "Framing", product: "06-framing",
            sight: "a stream of messages, cut at every place there is: the same messages every time"),
        Stop(
            number: "07", title: "Locked memory", product: "07-locked-memory",
            sight: "thousands of idle clients in four modes: the pages they lock, and who is still heard",
            arguments: ["--clients", "4000"]),
        Stop(
            number: "08", title: "File transfer", product: "08-file-transfer",
            sight: "a message in the middle of a file; then files over one connection, each of them whole"),
        Stop(
            number: "09", title: "Worker pools", product: "09-worker-pools",
            sight: "a computation in a handler and as a job: how long 32 other clients wait"),
        Stop(
            number: "10", title: "Thread-pool I/O", product: "10-thread-pool-io",
            sight: "threads that come with the work, blocked callbacks, and a server that ends well"),
        Stop(
            number: "11", title: "Server and client", product: "11-server-and-client",
            sight: "a server's whole life: who is let in, floods, files, clients that come back, a stop"),
        Stop(
            number: "12", title: "Many ports", product: "12-many-ports",
            sight:
                "eight busy clients on one of two ports; then even, then apart; a connection that changes its lane"
        ),
        Stop(
            number: "13", title: "async/await", product: "13-async-await",
            sight: "one server in three forms, a cancel that loses no byte, and a tree of tasks that ends"),
    ]

    /// A chapter's number, if this is one of its names: `2`, `02` or `02-completion-ports`. Any other word stays.
    static func number(_ word: String) -> String {
        let stop = all.first { $0.product == word || (Int(word) != nil && Int(word) == Int($0.number)) }
        return stop?.number ?? word
    }

    /// The stop with this number. Ends the program if there is none.
    static func called(_ number: String) -> Stop {
        guard let stop = all.first(where: { $0.number == number }) else {
            refuse("tour: there is no chapter \(number); --list names them")
        }
        return stop
    }
}
