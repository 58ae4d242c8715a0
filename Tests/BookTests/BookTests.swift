import Testing

/// Text and code agree. Each check is a function over a `Project`; here they are held against this one,
/// in `CheckTests` against a made-up one with a planted error.
@Suite("The book") struct BookTests {
    @Test("every listing is a verbatim piece of the file it names") func listings() {
        expectNone(checkListings(.here))
    }

    @Test("every link leads somewhere, every picture says its point in words") func links() {
        expectNone(checkLinks(.here))
    }

    @Test("every pitfall is reproduced, fixed and told") func slugs() {
        expectNone(checkSlugs(.here))
    }

    @Test("every tutorial has all its parts, in order") func shape() {
        expectNone(checkShape(.here))
    }

    @Test("every invariant is cited in code and tests") func invariants() {
        expectNone(checkInvariants(.here))
    }

    @Test("every chapter is complete, and nothing lies around") func layout() {
        expectNone(checkLayout(.here))
    }

    @Test("README, start page, manifest and folders list the same chapters") func contents() {
        expectNone(checkTableOfContents(.here))
    }

    @Test("libraries stay small enough to be read") func sizes() {
        expectNone(checkSizes(.here))
    }

    @Test("a third of each library stands in its chapter") func shown() {
        expectNone(checkShown(.here))
    }

    @Test("nothing is imported that should not be") func imports() {
        expectNone(checkImports(.here))
    }

    @Test("no room of Kernel knows what it should not") func kernelRooms() {
        expectNone(checkRooms(.here))
    }

    @Test("broken types live under Pitfalls only") func brokenTypes() {
        expectNone(checkBrokenTypes(.here))
    }

    @Test("the dictionary's names exist") func dictionary() {
        expectNone(checkDictionary(.here))
    }

    @Test("every diagram is well formed, drawn for light and dark, and shown") func drawings() {
        expectNone(checkDrawings(.here))
    }

    @Test("chapter 05 prints the program of a reader's own package whole, and it has at most 40 lines")
    func readersProgram() {
        let path = ".ci/reader/Sources/Reader/main.swift"
        let text = Project.here.files[path] ?? ""
        let page = Markdown(Project.here.files["Tutorials/05-reordering.md"] ?? "")
        let isPrinted = page.fences.contains {
            $0.source == path && $0.body.joined(separator: "\n") + "\n" == text
        }
        #expect(isPrinted, "\(path) differs from what the chapter prints")
        #expect(text.split(separator: "\n", omittingEmptySubsequences: false).count <= 41)
    }

    private func expectNone(_ complaints: [String], at place: SourceLocation = #_sourceLocation) {
        for complaint in complaints { Issue.record(Comment(rawValue: complaint), sourceLocation: place) }
    }
}
