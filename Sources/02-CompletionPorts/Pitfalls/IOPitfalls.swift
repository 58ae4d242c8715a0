import Stage

/// What goes wrong with requests, their packets and their port.
let ioPitfalls: [Pitfall] = [
    NullOverlappedFailure.pitfall,
    FailedIOIgnored.pitfall,
    InlineIOIsUnfair.pitfall,
    UrgentByteEndsARead.pitfall,
    AssociateTwice.pitfall,
    ClosedPortLosesPackets.pitfall,
    ImmediateSuccessHandledTwice.pitfall,
    IssuerExits.pitfall,
    SentinelIsARealKey.pitfall,
    KeyTruncated.pitfall,
    PostedButNotSubmitted.pitfall,
]
