import Stage

/// What goes wrong in this chapter, and what does not any more.
public enum Chapter11 {
    /// All of it, in the order in which the text tells it.
    public static let pitfalls: [Pitfall] = [
        ConnectionLimit.pitfall, OneAddressTakesAll.pitfall, AddressNeverFreed.pitfall,
        BannedSeesTheServer.pitfall,
        SocketTimeoutsIgnored.pitfall, SendFlood.pitfall, BacklogDeadlock.pitfall,
        CloseBeforeDelivered.pitfall,
        SentIsNotDelivered.pitfall, CallbackUnderLock.pitfall, RandomDisconnects.pitfall,
        ShutdownUnderLoad.pitfall,
        ShutdownGivesUpWaiting.pitfall, StartTwice.pitfall, PortAlreadyInUse.pitfall,
        ConnectWithoutReconnect.pitfall,
        ReconnectOnTheIOWorker.pitfall, FailedConnectLeaksSocket.pitfall,
        BrowserReadsAcrossSites.pitfall, ViewerDoesNotRead.pitfall,
    ]
}
