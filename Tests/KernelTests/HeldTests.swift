#if DEBUG
    import Glibc
    import Testing

    @testable import Kernel

    extension KernelSuite {
        /// In a debug build a function that has to be called with a lock looks whether the calling thread has it.
        @Suite("locks know who holds them") struct Held {
            @Test("without the lock the program stops") func notHeld() async {
                await #expect(processExitsWith: .failure) { Lock().assertHeld() }
                await #expect(processExitsWith: .failure) { _ = Socket().state.isIdle }
            }

            @Test("another thread's holding it does not count") func heldByAnother() async {
                await #expect(processExitsWith: .failure) {
                    let socket = Socket()
                    try Thread("holder") { socket.state.lock() }.join()
                    _ = socket.state.isIdle
                    // Not noticed: an end of its own, since the socket's would wait for that lock.
                    exit(EXIT_SUCCESS)
                }
            }

            @Test("with the lock it goes on") func held() async {
                await #expect(processExitsWith: .success) {
                    let lock = Lock()
                    lock.locked { lock.assertHeld() }
                    let socket = Socket()
                    #expect(socket.locked { $0.isIdle })
                }
            }
        }
    }
#endif
