import Stage

/// The pitfalls of this chapter.
public enum Chapter00 {
    /// Each of them, in the order of the tutorial.
    public static let pitfalls = [
        Pitfall(
            slug: "thread-per-client",
            title: "one thread for every client: threads grow with the clients, and most of them sleep",
            broken: ThreadPerClient.broken, fixed: ThreadPerClient.fixed),
        Pitfall(
            slug: "blocking-recv-stalls-all",
            title: "one thread serves its clients in turn, and a silent one stalls everybody",
            broken: BlockingRecvStallsAll.broken, fixed: BlockingRecvStallsAll.fixed),
        Pitfall(
            slug: "polling-wastes-cpu",
            title: "asking every socket in a loop burns a processor while nothing happens",
            broken: PollingWastesCPU.broken, fixed: PollingWastesCPU.fixed),
        Pitfall(
            slug: "readiness-is-half-the-job",
            title:
                "a notice says that you may read; you still read yourself, and by then the data may be gone",
            broken: ReadinessIsHalfTheJob.broken, fixed: ReadinessIsHalfTheJob.fixed),
    ]
}
