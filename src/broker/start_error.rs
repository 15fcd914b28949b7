//! Why a broker does not start, or had to stop.

use crate::{
    cluster::{ClusterError, RebuildError},
    config::Problems,
};

/// What stands between the operator and a running broker; the text names the key, or the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings or the machine do not allow it.
    #[error("{0}")]
    Problems(Problems),
    /// An address is taken or cannot be bound.
    #[error("{key}: {why}")]
    Listen {
        /// The setting.
        key: &'static str,
        /// The address, what the operating system says of it, and what mends it.
        why: String,
    },
    /// The object store does not open.
    #[error("object.store.url: {0}")]
    Store(String),
    /// The metadata does not open, or contradicts the settings.
    #[error("{0}")]
    Cluster(#[from] ClusterError),
    /// The metadata does not open, and the bucket does not give it back.
    #[error("{refused}; and it could not be rebuilt from the object store: {why}")]
    Rebuild {
        /// Why it does not open.
        refused: Box<ClusterError>,
        /// What stands against a rebuild.
        why: Box<RebuildError>,
    },
    /// A WAL slice does not open.
    #[error("wal.path: {0}")]
    Wal(String),
    /// An executor cannot start.
    #[error(
        "shards: cannot start an executor: {0} (io_uring and 512 KiB of locked memory are needed: `ulimit -l unlimited`)"
    )]
    Executor(String),
    /// A thread or a pipe was refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The broker ran and could not go on; what was acknowledged is safe.
    #[error("stopped: {0}")]
    Failed(String),
}

impl StartError {
    /// Whether the broker had already served when this happened (another exit code than a refused start).
    pub fn after_start(&self) -> bool {
        matches!(self, StartError::Failed(_))
    }
}
