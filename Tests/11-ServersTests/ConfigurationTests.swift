import Kernel
import Servers
import Testing

@testable import ServersDemo

@Suite("Chapter 11: configuration") struct ConfigurationTests {
    private func fault(_ text: String) -> String? {
        var configuration = Configuration()
        do throws(Configuration.Fault) {
            try configuration.read(text)
            return nil
        } catch {
            return error.description
        }
    }

    @Test("what is printed can be read, and says the same")
    func roundTrip() throws {
        var configuration = Configuration()
        let defaults = configuration.text
        try configuration.read(defaults)
        #expect(configuration.text == defaults)
        #expect(Set(Setting.all.map(\.name)).count == Setting.all.count)
    }

    @Test("every option can be changed, and is read again as it was written")
    func every() throws {
        let other = [
            "address": "127.0.0.1:4000 [::1]:0", "bans": "10.0.0.0/8 ::1", "keepAlive": "1 min, 2 s, 5",
            "files.folder": "/tmp/a folder",
        ]
        let candidates = [
            "7", "70", "none", "all", "7 s", "reset", "refuses", "zeroByte", "system", "on", "off",
            "information", "io_uring", "afterBatch",
        ]
        for setting in Setting.all {
            let old = setting.read(Configuration())
            let possible = other[setting.name].map { [$0] } ?? candidates
            let value = possible.first { value in
                var trial = Configuration()
                return value != old && setting.write(&trial, value)
            }
            let new = try #require(value, "\(setting.name) takes none of them")
            var changed = Configuration()
            try changed.read("  \(setting.name)=\(new)  ")
            #expect(setting.read(changed) == new, "\(setting.name)")
            // And nothing else is.
            let differing = Setting.all.filter { $0.read(changed) != $0.read(Configuration()) }.map(\.name)
            #expect(differing == [setting.name])
        }
    }

    @Test("values arrive in the options")
    func values() throws {
        var configuration = Configuration()
        try configuration.read(
            """
            # a server for few
            maximumConnections = 12
            maximumPerAddress = 3
            bans = 10.0.0.0/9 10.128.0.0/9
            limits.idle = 2 min\r
            maximumFreeBuffers = all
            link.reconnects = off
            port.driver = io_uring
            port.poll = 20
            link.kept = 0
            link.jitter = 25
            link.factor = 3
            link.seed = 12
            address = [::1]:4000

            """)
        let options = configuration.server.endpoint
        #expect(options.maximumConnections == 12 && options.maximumPerAddress == 3)
        #expect(options.bans.description == "10.0.0.0/8" && options.limits.idle == .seconds(120))
        #expect(options.maximumFreeBuffers == .max && configuration.link.reconnection == nil)
        #expect(
            options.port.driver == DriverKind.ioUring && options.port.pollBeforeSleep == .microseconds(20))
        #expect(configuration.link.whileApart == .refused && configuration.listensBeside)
        configuration.isReconnecting = true
        let comesBack = try #require(configuration.link.reconnection)
        #expect(comesBack.jitter == 0.25 && comesBack.factor == 3 && comesBack.seed == 12)
    }

    @Test(
        "a fault is one line, with its number and with what to do",
        arguments: [
            (
                "maximumConnection = 3",
                "line 1: there is no option 'maximumConnection'; did you mean 'maximumConnections'?"
            ),
            (
                "\nMAXIMUMPACKAGE = 3",
                "line 2: there is no option 'MAXIMUMPACKAGE'; did you mean 'maximumPackage'?"
            ),
            ("colour = red", "line 1: there is no option 'colour'; '--config -' prints those that there are"),
            ("# a\n\npendingReads = 100", "line 3: 'pendingReads' takes a number from 1 to 64, not '100'"),
            ("pendingReads", "line 1: 'pendingReads' should be 'name = value'"),
            ("batch = 2\nbatch = 3", "line 2: 'batch' has been set in line 1"),
            ("refusal = loud", "line 1: 'refusal' takes 'silent' or 'reset' or 'words', not 'loud'"),
            (
                "limits.idle = 3",
                "line 1: 'limits.idle' takes a time such as '500 ms', '10 s' or '2 min', or 'none', not '3'"
            ),
            (
                "bans = 10.0.0.0/8 x",
                "line 1: 'bans' takes addresses and ranges, such as '127.0.0.3 10.0.0.0/8', or 'none', not '10.0.0.0/8 x'"
            ),
            (
                "address = ",
                "line 1: 'address' takes addresses with ports, such as '127.0.0.1:4000 [::1]:4000', not ''"
            ),
            (
                "address = ::1:80",
                "line 1: 'address' takes addresses with ports, such as '127.0.0.1:4000 [::1]:4000', not '::1:80'"
            ),
        ])
    func faults(text: String, words: String) { #expect(fault(text) == words) }

    @Test(
        "bad values of every option are told",
        arguments: ["", "-1", "0 s", "1 day", "99999999999999999999", "è"])
    func bad(value: String) {
        for setting in Setting.all where setting.name != "files.folder" {
            #expect(
                fault("\(setting.name) = \(value)")?.hasPrefix("line 1: '\(setting.name)' takes ") == true,
                "\(setting.name)")
        }
    }
}
