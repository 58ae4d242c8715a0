/// The book's echo server on Windows' own port, for Windows. `Tutorials/taking-it-home.md` goes through it line by line.
@main enum TakingItHome {
    static func main() {
        #if os(Windows)
            serveUntilReturn()
        #else
            print("taking-it-home: this program is for Windows; Tutorials/taking-it-home.md tells about it")
        #endif
    }
}
