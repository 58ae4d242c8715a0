import Stage
import Testing

@testable import Watch

/// The page is one text, and no program that looks at HTML may be needed to know that it is right.
@Suite("Chapter 11: the page's HTML") struct PageTests {
    @Test(
        "one root, every tag closed, every name once, nothing from elsewhere, and what browsers and readers need"
    )
    func page() throws {
        let page = Markup(StatusPage.html)
        #expect(page.faults.isEmpty, "\(page.faults)")
        #expect(page.tags.first?.name == "html" && page.tags.first?.attributes["lang"] == "en")
        #expect(page.tags.contains { $0.name == "meta" && $0.attributes["charset"] == "utf-8" })
        let viewport = page.tags.first { $0.attributes["name"] == "viewport" }
        #expect(viewport?.attributes["content"]?.contains("width=device-width") == true)
        #expect(
            page.tags.count { $0.name == "title" } == 1 && StatusPage.html.contains("<title>Server</title>"))
        #expect(page.tags.count { $0.name == "main" } == 1 && page.tags.count { $0.name == "h1" } == 1)
        // Who cannot see a picture is told what it shows.
        for picture in page.tags where picture.name == "svg" {
            #expect(picture.attributes["aria-label"]?.isEmpty == false)
        }
        // What the script asks for is there.
        for piece in StatusPage.html.split(separator: "at(\"").dropFirst() {
            let id = String(piece.prefix { $0 != "\"" })
            #expect(page.tags.contains { $0.attributes["id"] == id }, "\(id)")
        }
    }

    @Test(
        "what is wrong with a page is found",
        arguments: [
            ("<html><p></html>", "</html> closes <p>"), ("<html></html><p></p>", "a second root: <p>"),
            ("<html></p></html>", "</p> closes <html>"), ("<html>", "<html> is not closed"),
            ("<html><p id=\"a\"></p><p id=\"a\"></p></html>", "id a is there twice"),
            (
                "<html><img src=\"https://example.org/a\"></html>",
                "something from elsewhere: https://example.org/a"
            ),
            ("<html><style>@import url(//example.org)</style></html>", "something from elsewhere in style"),
            ("<html><script>fetch(\"http://a\")</script></html>", "something from elsewhere in script"),
            ("<html><p class=a></p></html>", "an attribute without quotes: class"),
        ])
    func faults(text: String, fault: String) { #expect(Markup("<!DOCTYPE html>" + text).faults == [fault]) }

    @Test("a page without its first line is told of")
    func doctype() { #expect(Markup("<html></html>").faults == ["it does not begin with <!DOCTYPE html>"]) }
}

/// As much of HTML as the page is made of: tags with attributes in quotation marks, texts, a style and a script.
private struct Markup {
    struct Tag {
        var name = "", attributes: [String: String] = [:]
    }

    private(set) var tags: [Tag] = []
    private(set) var faults: [String] = []

    private static let void: Set = ["meta", "link", "br", "hr", "img", "input"]

    init(_ text: String) {
        let start = "<!DOCTYPE html>"
        if !text.hasPrefix(start) { faults.append("it does not begin with \(start)") }
        var rest = text.hasPrefix(start) ? text.dropFirst(start.count) : text[...]
        var (open, roots, ids) = ([String](), 0, Set<String>())
        while let begin = rest.firstIndex(of: "<") {
            rest = rest[rest.index(after: begin)...]
            guard let end = rest.firstIndex(of: ">") else {
                faults.append("a tag without an end")
                return
            }
            let inside = rest[..<end]
            rest = rest[rest.index(after: end)...]
            if inside.hasPrefix("/") {
                let name = String(inside.dropFirst())
                if open.last == name {
                    open.removeLast()
                } else {
                    faults.append("</\(name)> closes \(open.last.map { "<\($0)>" } ?? "nothing")")
                    // On with what was meant.
                    if let place = open.lastIndex(of: name) { open.removeSubrange(place...) }
                }
                continue
            }
            let tag = read(inside)
            tags.append(tag)
            if open.isEmpty {
                roots += 1
                if roots > 1 { faults.append("a second root: <\(tag.name)>") }
            }
            if let id = tag.attributes["id"], !ids.insert(id).inserted {
                faults.append("id \(id) is there twice")
            }
            for name in ["href", "src", "action"] {
                if let url = tag.attributes[name], !url.hasPrefix("data:"),
                    !url.hasPrefix("/") || url.hasPrefix("//")
                {
                    faults.append("something from elsewhere: \(url)")
                }
            }
            if inside.hasSuffix("/") || Markup.void.contains(tag.name) { continue }
            open.append(tag.name)
            if tag.name == "style" || tag.name == "script" {
                let closing = "</\(tag.name)>"
                var body = ""
                while !rest.isEmpty, !rest.hasPrefix(closing) { body.append(rest.removeFirst()) }
                if ["http:", "https:", "url(", "@import", "import("].contains(where: body.contains) {
                    faults.append("something from elsewhere in \(tag.name)")
                }
            }
        }
        for name in open { faults.append("<\(name)> is not closed") }
    }

    private mutating func read(_ inside: Substring) -> Tag {
        var tag = Tag()
        var rest = inside.hasSuffix("/") ? inside.dropLast() : inside
        tag.name = String(rest.prefix { !$0.isWhitespace })
        rest = rest.dropFirst(tag.name.count)
        while true {
            rest = rest.drop { $0.isWhitespace }
            let name = String(rest.prefix { $0 != "=" && !$0.isWhitespace })
            if name.isEmpty { return tag }
            rest = rest.dropFirst(name.count)
            guard rest.first == "=" else {
                tag.attributes[name] = ""
                continue
            }
            rest = rest.dropFirst()
            guard rest.first == "\"" else {
                faults.append("an attribute without quotes: \(name)")
                return tag
            }
            rest = rest.dropFirst()
            tag.attributes[name] = String(rest.prefix { $0 != "\"" })
            rest = rest.drop { $0 != "\"" }.dropFirst()
        }
    }
}
