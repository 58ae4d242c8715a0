import Stage

/// What goes wrong with workers: how many run, who is woken, and how they end.
let workerPitfalls: [Pitfall] = [
    TooManyRunnableThreads.pitfall,
    BlockedWorkerStallsPort.pitfall,
    FIFOWakeGoesCold.pitfall,
    ExitFlagNeverSeen.pitfall,
    OneExitPacket.pitfall,
    ShutdownTrustsLastThread.pitfall,
    ShutdownSpinsWithoutWorkers.pitfall,
    BroadcastByNPackets.pitfall,
    BatchDequeueStarves.pitfall,
    LeaderLeavesNobody.pitfall,
    PostsStarveIO.pitfall,
    PollEatsTheWakeup.pitfall,
    WorkerDiesSilently.pitfall,
]
