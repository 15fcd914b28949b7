//! What a run of the whole broker did.

/// Figures of one history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Equal for equal seeds, in any process.
    pub digest: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Starts of the broker.
    pub starts: u32,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Batches read and judged.
    pub read: u64,
    /// Offsets of groups committed.
    pub offset_commits: u64,
    /// Topics created.
    pub topics: usize,
    /// Topics deleted.
    pub topics_deleted: u64,
    /// Ranges read from the bucket.
    pub store_gets: u64,
    /// Objects in the bucket at the end.
    pub objects: usize,
    /// Virtual time at the end, in seconds.
    pub virtual_seconds: u64,
}
