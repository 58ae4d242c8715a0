import Kernel
import ServersPitfalls
import Stage
import Testing

@Suite("Chapter 11: what goes wrong with a live page", .serialized)
struct Chapter11WatchPitfalls {
    @Test("browser-reads-across-sites: a foreign name gets the figures", arguments: DriverKind.permitted)
    func browserReadsAcrossSites(driver: DriverKind) async throws {
        try await happens(BrowserReadsAcrossSites.pitfall, driver)
    }

    @Test("viewer-does-not-read: events pile up", arguments: DriverKind.permitted)
    func viewerDoesNotRead(driver: DriverKind) async throws {
        try await happens(ViewerDoesNotRead.pitfall, driver)
    }
}
