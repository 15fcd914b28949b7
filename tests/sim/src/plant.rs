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
}

impl Plant {
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
