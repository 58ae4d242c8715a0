// swift-tools-version: 6.3
import PackageDescription

/// One chapter of the book. Everything that the package has to know of it follows from these three words.
struct Chapter {
    /// The chapter's number and module, as the folder under `Sources/` spells them: `02-CompletionPorts`.
    let folder: String
    /// What the reader types after `swift run`.
    let product: String
    /// The earlier chapters that this one builds on, by module.
    let uses: [String]
    /// Libraries of its own beside the chapter's, each in a folder of its name. They use what the chapter's library uses.
    var beside: [String] = []
    /// Whether values of the demonstration itself, such as its configuration, have tests of their own.
    var testsDemo = false

    var module: String { String(folder.dropFirst(3)) }
}

let chapters = [
    Chapter(folder: "00-OneThreadPerClient", product: "00-one-thread-per-client", uses: []),
    Chapter(folder: "01-AsyncEvents", product: "01-async-events", uses: []),
    Chapter(folder: "02-CompletionPorts", product: "02-completion-ports", uses: ["AsyncEvents"]),
    Chapter(folder: "03-PrepostedAccepts", product: "03-preposted-accepts", uses: ["CompletionPorts"]),
    Chapter(
        folder: "04-Contexts", product: "04-contexts",
        uses: ["AsyncEvents", "CompletionPorts", "PrepostedAccepts"]),
    Chapter(
        folder: "05-Reordering", product: "05-reordering",
        uses: ["CompletionPorts", "PrepostedAccepts", "Contexts"]),
    Chapter(
        folder: "06-Framing", product: "06-framing",
        uses: ["AsyncEvents", "CompletionPorts", "Contexts", "Reordering"]),
    Chapter(
        folder: "07-LockedMemory", product: "07-locked-memory",
        uses: ["CompletionPorts", "PrepostedAccepts", "Contexts", "Reordering"]),
    Chapter(
        folder: "08-FileTransfer", product: "08-file-transfer",
        uses: ["AsyncEvents", "CompletionPorts", "Contexts", "Reordering", "Framing", "LockedMemory"]),
    Chapter(
        folder: "09-WorkerPools", product: "09-worker-pools",
        uses: ["CompletionPorts", "Contexts", "Reordering", "Framing", "FileTransfer"]),
    Chapter(
        folder: "10-ThreadPoolIO", product: "10-thread-pool-io",
        uses: ["AsyncEvents", "CompletionPorts", "PrepostedAccepts", "Framing", "WorkerPools"]),
    Chapter(
        folder: "11-Servers", product: "11-server-and-client",
        uses: [
            "AsyncEvents", "CompletionPorts", "PrepostedAccepts", "Contexts", "Reordering", "Framing",
            "LockedMemory",
            "FileTransfer", "WorkerPools", "ThreadPoolIO",
        ],
        beside: ["Watch"], testsDemo: true),
    Chapter(
        folder: "12-ManyPorts", product: "12-many-ports",
        uses: ["CompletionPorts", "Contexts", "Reordering", "Framing", "FileTransfer"]),
    Chapter(
        folder: "13-AsyncAwait", product: "13-async-await",
        uses: ["CompletionPorts", "Contexts", "Reordering", "Framing", "ThreadPoolIO"]),
]

let strict: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    // What a lock guards needs no second guard at run time. In debug builds, and so in all tests, it stays. Without
    // this a round trip takes three times the instructions; Swift 6.3 takes the flag in a dependency by version, too.
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

/// `Kernel` is what an operating system gives you, `Timeline` records and draws, `Stage` is what every demo
/// and test shares: options, gates, a plain load of clients.
let foundation: [Target.Dependency] = ["Kernel", "Timeline"]

var targets: [Target] = [
    .systemLibrary(name: "CKernel"),
    .target(name: "Timeline", dependencies: ["CKernel"], swiftSettings: strict),
    .target(name: "Kernel", dependencies: ["CKernel", "Timeline"], swiftSettings: strict),
    .target(name: "Stage", dependencies: foundation, swiftSettings: strict),
    .testTarget(name: "KernelTests", dependencies: foundation + ["Stage", "CKernel"], swiftSettings: strict),
    .testTarget(name: "TimelineTests", dependencies: foundation + ["Stage"], swiftSettings: strict),
    .testTarget(
        name: "StageTests", dependencies: foundation + ["Stage", "CKernel"], swiftSettings: strict),
    .testTarget(name: "BookTests", dependencies: ["Tour", "Stage"], swiftSettings: strict),
    // For Windows: elsewhere it says so, and ends.
    .executableTarget(name: "TakingItHome", swiftSettings: strict),
    // The tour runs the demonstrations as programs of their own; as dependencies they are built along with it.
    .executableTarget(
        name: "Tour", dependencies: ["Stage"] + chapters.map { .target(name: $0.module + "Demo") },
        swiftSettings: strict),
    .executableTarget(
        name: "Bench",
        // What chapter 02's tests explore, chapter 06's feed its reader with, chapter 08's put on one connection, chapter
        // 10's end, chapter 11's bear and chapter 12's move, `bench stress` does for longer.
        dependencies: foundation
            + [
                "Stage", "CKernel", "CompletionPortsPitfalls", "FramingPitfalls", "FileTransferPitfalls",
                "WorkerPoolsPitfalls", "ThreadPoolIOPitfalls", "ServersPitfalls", "ManyPortsPitfalls",
            ]
            + chapters.map { .target(name: $0.module) },
        swiftSettings: strict),
]
var products: [Product] = [
    .executable(name: "tour", targets: ["Tour"]),
    .executable(name: "bench", targets: ["Bench"]),
    .executable(name: "taking-it-home", targets: ["TakingItHome"]),
    // A package of your own may build on a chapter: it depends on this one by version, and names the modules it uses.
    .library(name: "Kernel", targets: ["Kernel"]),
    .library(name: "Timeline", targets: ["Timeline"]),
]

for chapter in chapters {
    let earlier = chapter.uses.map { Target.Dependency.target(name: $0) }
    let library = foundation + earlier
    let beside = chapter.beside.map { Target.Dependency.target(name: $0) }
    let everything = library + beside + [.target(name: chapter.module), "Stage", "CKernel"]
    for name in chapter.beside {
        targets.append(
            .target(
                name: name, dependencies: library, path: "Sources/\(chapter.folder)/\(name)",
                swiftSettings: strict))
        products.append(.library(name: name, targets: [name]))
    }
    targets += [
        .target(
            name: chapter.module, dependencies: library,
            path: "Sources/\(chapter.folder)/Library", swiftSettings: strict),
        .target(
            name: chapter.module + "Pitfalls", dependencies: everything,
            path: "Sources/\(chapter.folder)/Pitfalls", swiftSettings: strict),
        .executableTarget(
            name: chapter.module + "Demo",
            dependencies: everything + [.target(name: chapter.module + "Pitfalls")],
            path: "Sources/\(chapter.folder)/Demo", swiftSettings: strict),
        .testTarget(
            name: chapter.module + "Tests",
            dependencies: everything + [.target(name: chapter.module + "Pitfalls")]
                + (chapter.testsDemo ? [.target(name: chapter.module + "Demo")] : []),
            path: "Tests/\(chapter.folder)Tests", swiftSettings: strict),
    ]
    products += [
        .executable(name: chapter.product, targets: [chapter.module + "Demo"]),
        .library(name: chapter.module, targets: [chapter.module]),
    ]
}

let package = Package(
    name: "completion-ports-step-by-step", products: products, targets: targets, swiftLanguageModes: [.v6])
