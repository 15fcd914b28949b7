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
    /// Settings of topics changed.
    pub alterations: u64,
    /// Answers within a fetch session.
    pub session_fetches: u64,
    /// Offsets looked up by time.
    pub look_ups: u64,
    /// Partitions that moved to another shard.
    pub moves: u64,
    /// Figures of the broker's memory that were compared with their bounds.
    pub figures: u64,
    /// Objects that compaction made, by kind, and those that it threw away (`dropped`).
    pub compacted: std::collections::BTreeMap<String, u64>,
    /// Manifests written, given up below a log start, and given back to what they list.
    pub manifests: [u64; 3],
    /// Rounds of log cleaning.
    pub cleaned: u64,
    /// Batches that were read without some of their records, which cleaning had taken.
    pub thinned: u64,
    /// Whole logs that were read and judged by their keys.
    pub passes: u64,
    /// Starts that were refused because acknowledged data was damaged, rightly.
    pub refusals: u64,
    /// Whether the metadata was made anew from the bucket at the end.
    pub rebuilt: bool,
    /// Objects deleted from the bucket.
    pub store_deletes: u64,
    /// Virtual time at the end, in seconds.
    pub virtual_seconds: u64,
}
