import Kernel
import ServersPitfalls
import Stage
import Testing

@Suite("Chapter 11: a live page that holds", .serialized)
struct Chapter11WatchFixes {
    @Test("browser-reads-across-sites: a foreign name is refused", arguments: DriverKind.permitted)
    func browserReadsAcrossSites(driver: DriverKind) async throws {
        try await holds(BrowserReadsAcrossSites.pitfall, driver)
    }

    @Test("viewer-does-not-read: it is dropped, and another one goes on", arguments: DriverKind.permitted)
    func viewerDoesNotRead(driver: DriverKind) async throws {
        try await holds(ViewerDoesNotRead.pitfall, driver)
    }
}
