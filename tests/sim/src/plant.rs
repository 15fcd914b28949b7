//! Protections to take out, so that a run shows that it would notice.

/// What is taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Plant {
    /// Nothing.
    #[default]
    Nothing,
    /// O_DSYNC's meaning: the disk says `Ok` while the bytes are still volatile.
    EarlyOk,
    /// The metadata store says that commits are durable before they are.
    EarlySync,
    /// The WAL's incarnation check and its chain of CRCs.
    #[cfg(feature = "planted-bugs")]
    NoIncarnationNoChain,
    /// The log is trimmed when commits are made, before they are durable.
    #[cfg(feature = "planted-bugs")]
    TrimBeforeFsync,
    /// An upload commits without waiting for the one before it.
    #[cfg(feature = "planted-bugs")]
    CommitsOutOfOrder,
    /// Readers see a group when it is handed to the device.
    #[cfg(feature = "planted-bugs")]
    PromotedEarly,
    /// The janitor deletes objects by their age.
    #[cfg(feature = "planted-bugs")]
    DeletedByAge,
    /// The log is trimmed up to what is durable, committed or not.
    #[cfg(feature = "planted-bugs")]
    EvictedBeforeCommitted,
    /// Room in the ring is used again when the first of the two superblocks is past it.
    #[cfg(feature = "planted-bugs")]
    OneSuperblock,
    /// A repetition is answered while the original is still on its way.
    #[cfg(feature = "planted-bugs")]
    DuplicateEarly,
    /// The offset is assigned before there is room.
    #[cfg(feature = "planted-bugs")]
    OffsetBeforeRoom,
    /// Of several fetches parked at one partition, one is woken.
    #[cfg(feature = "planted-bugs")]
    LostWake,
    /// A compaction is committed without comparing what it replaces.
    #[cfg(feature = "planted-bugs")]
    InputChanged,
    /// A compaction's reservation is used for the next one's object too.
    #[cfg(feature = "planted-bugs")]
    OutputTwice,
    /// What leaves an object that is mostly dead leaves a block behind.
    #[cfg(feature = "planted-bugs")]
    SplitLostBlock,
    /// A partition moves to another shard without what it knows of producers.
    #[cfg(feature = "planted-bugs")]
    ProducersLeftBehind,
    /// A shard hands a partition over while batches of it are on their way to the device.
    #[cfg(feature = "planted-bugs")]
    SealedBeforeDurable,
    /// A shard goes on appending to a partition that it sealed.
    #[cfg(feature = "planted-bugs")]
    AppendedAfterSeal,
    /// A start forgets what the log of the shard before holds of a partition that moved.
    #[cfg(feature = "planted-bugs")]
    LoanForgotten,
    /// A connection sends to the new owner of a partition while what it sent to the old one is not answered.
    #[cfg(feature = "planted-bugs")]
    SentAhead,
    /// A shard uploads what it took over without waiting for the loan to end.
    #[cfg(feature = "planted-bugs")]
    LoanNotAwaited,
    /// What is lent is read from the batch after the one that was asked for.
    #[cfg(feature = "planted-bugs")]
    LoanReadAhead,
    /// Cleaning knows keys by two bits of their hash.
    #[cfg(feature = "planted-bugs")]
    ShortKeyHash,
    /// Cleaning takes tombstones away before their delete horizon.
    #[cfg(feature = "planted-bugs")]
    TombstoneEarly,
    /// The dirty point moves before what was cleaned is committed.
    #[cfg(feature = "planted-bugs")]
    DirtyPointEarly,
    /// Entries give their place to a manifest that was not put.
    #[cfg(feature = "planted-bugs")]
    ManifestNotPut,
    /// A fold is committed without comparing what it takes.
    #[cfg(feature = "planted-bugs")]
    FoldUnchecked,
    /// A manifest that lies below the log start is forgotten, with all that it lists.
    #[cfg(feature = "planted-bugs")]
    ManifestForgotten,
    /// A manifest's reservation that a crash left is taken for one that nobody used.
    #[cfg(feature = "planted-bugs")]
    ManifestOrphaned,
    /// What takes the place of objects does not tell of the aborted transactions that these tell of.
    #[cfg(feature = "planted-bugs")]
    AbortedDropped,
}

impl Plant {
    /// Puts the bug into the product, for this thread, until the next run. With any, or none, uploads tell of aborted transactions.
    pub(crate) fn put_in(self) {
        #[cfg(feature = "planted-bugs")]
        {
            thalweg_wal::plant(self.bug());
            thalweg_shards::upload::pretend_aborted(Some(crate::aborted::within));
        }
    }

    #[cfg(feature = "planted-bugs")]
    fn bug(self) -> Option<thalweg_wal::Bug> {
        use thalweg_wal::Bug;
        Some(match self {
            Plant::Nothing | Plant::EarlyOk | Plant::EarlySync | Plant::NoIncarnationNoChain => return None,
            Plant::TrimBeforeFsync => Bug::TrimBeforeFsync,
            Plant::CommitsOutOfOrder => Bug::CommitsOutOfOrder,
            Plant::PromotedEarly => Bug::PromotedEarly,
            Plant::DeletedByAge => Bug::DeletedByAge,
            Plant::EvictedBeforeCommitted => Bug::EvictedBeforeCommitted,
            Plant::OneSuperblock => Bug::OneSuperblock,
            Plant::DuplicateEarly => Bug::DuplicateEarly,
            Plant::OffsetBeforeRoom => Bug::OffsetBeforeRoom,
            Plant::LostWake => Bug::LostWake,
            Plant::InputChanged => Bug::InputChanged,
            Plant::OutputTwice => Bug::OutputTwice,
            Plant::SplitLostBlock => Bug::SplitLostBlock,
            Plant::ProducersLeftBehind => Bug::ProducersLeftBehind,
            Plant::SealedBeforeDurable => Bug::SealedBeforeDurable,
            Plant::AppendedAfterSeal => Bug::AppendedAfterSeal,
            Plant::LoanForgotten => Bug::LoanForgotten,
            Plant::SentAhead => Bug::SentAhead,
            Plant::LoanNotAwaited => Bug::LoanNotAwaited,
            Plant::LoanReadAhead => Bug::LoanReadAhead,
            Plant::ShortKeyHash => Bug::ShortKeyHash,
            Plant::TombstoneEarly => Bug::TombstoneEarly,
            Plant::DirtyPointEarly => Bug::DirtyPointEarly,
            Plant::ManifestNotPut => Bug::ManifestNotPut,
            Plant::FoldUnchecked => Bug::FoldUnchecked,
            Plant::ManifestForgotten => Bug::ManifestForgotten,
            Plant::ManifestOrphaned => Bug::ManifestOrphaned,
            Plant::AbortedDropped => Bug::AbortedDropped,
        })
    }

    /// The WAL's limits, with what the plant takes out of them.
    pub(crate) fn into_log_config(self, config: thalweg_wal::LogConfig) -> thalweg_wal::LogConfig {
        #[cfg(feature = "planted-bugs")]
        if self == Plant::NoIncarnationNoChain {
            let planted = thalweg_wal::PlantedBugs { no_incarnation: true, no_chain: true };
            return thalweg_wal::LogConfig { planted, ..config };
        }
        config
    }
}
