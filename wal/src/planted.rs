//! Protections that a test can take out, to show that it would notice. Never in a release: a feature for tests alone.

/// Which protections are off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlantedBugs {
    /// Groups bear no incarnation, and recovery asks for none.
    pub no_incarnation: bool,
    /// Recovery follows groups whose link to the one before does not match.
    pub no_chain: bool,
}

/// A bug that a simulation puts in for its own thread, in this crate or one above, to show that it would find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The log is trimmed when commits are made, before they are durable.
    TrimBeforeFsync,
    /// An upload commits without waiting for the one before it.
    CommitsOutOfOrder,
    /// Readers see a group when it is handed to the device.
    PromotedEarly,
    /// The janitor deletes objects by their age.
    DeletedByAge,
    /// The log is trimmed up to what is durable, committed or not.
    EvictedBeforeCommitted,
    /// Room is used again when the first of the two superblocks is past it.
    OneSuperblock,
    /// A repetition is answered while the original is still on its way.
    DuplicateEarly,
    /// The offset is assigned before there is room.
    OffsetBeforeRoom,
    /// Of several fetches parked at one partition, one is woken.
    LostWake,
    /// A compaction is committed without comparing what it replaces.
    InputChanged,
    /// A compaction's reservation is used for the next one's object too.
    OutputTwice,
    /// What leaves an object that is mostly dead leaves a block behind.
    SplitLostBlock,
    /// A partition moves to another shard without what it knows of producers.
    ProducersLeftBehind,
    /// A shard hands a partition over while batches of it are on their way to the device.
    SealedBeforeDurable,
    /// A shard goes on appending to a partition that it sealed.
    AppendedAfterSeal,
    /// A start takes batches of a partition that moved for those of a deleted topic, where they lie in the log of the shard before.
    LoanForgotten,
    /// A connection sends to the new owner of a partition while what it sent to the old one is not answered.
    SentAhead,
    /// A shard uploads what it took over without waiting for the loan to end.
    LoanNotAwaited,
    /// What is lent is read from the batch after the one that was asked for.
    LoanReadAhead,
    /// Cleaning knows keys by two bits of their hash.
    ShortKeyHash,
    /// Cleaning takes tombstones away before their delete horizon.
    TombstoneEarly,
    /// The dirty point moves before what was cleaned is committed.
    DirtyPointEarly,
    /// Entries give their place to a manifest that was not put.
    ManifestNotPut,
    /// A fold is committed without comparing what it takes.
    FoldUnchecked,
    /// A manifest that lies below the log start is forgotten, with all that it lists.
    ManifestForgotten,
    /// A manifest's reservation that a crash left is taken for one that nobody used.
    ManifestOrphaned,
    /// What takes the place of objects does not tell of the aborted transactions that these tell of.
    AbortedDropped,
}

thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Puts a bug in, in place of the last one, for the calling thread.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether a bug is put in.
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
