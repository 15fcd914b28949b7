//! Why the cluster metadata cannot be opened, in words that name the setting or the command that mends it.

use super::store::MetadataError;

/// Why a broker cannot start on its metadata. All of them end the start with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The metadata store itself.
    #[error(transparent)]
    Store(#[from] MetadataError),
    /// What it holds does not fit together, or was written by a newer version.
    #[error("cluster metadata below \"data.dir\" cannot be used: {0}")]
    Damaged(String),
    /// The data directory belongs to another broker.
    #[error(
        "\"data.dir\" {dir} belongs to broker {found}, but \"node.id\" is {configured}: set \"node.id\" = {found}, or give \
         this broker a \"data.dir\" of its own"
    )]
    OtherNode {
        /// The data directory.
        dir: String,
        /// Whose it is.
        found: i32,
        /// Who asks.
        configured: i32,
    },
    /// The bucket prefix belongs to another cluster.
    #[error(
        "\"object.store.url\" {url} belongs to cluster {found}, but \"data.dir\" {dir} to cluster {own}: point \
         \"object.store.url\" to the prefix that this data directory was used with, or to an empty one with an empty \"data.dir\""
    )]
    OtherCluster {
        /// The object store.
        url: String,
        /// Whose it is.
        found: String,
        /// The data directory.
        dir: String,
        /// Its cluster.
        own: String,
    },
    /// The data directory is empty but the prefix is in use.
    #[error(
        "\"data.dir\" {dir} is empty, but \"object.store.url\" {url} holds the data of cluster {found}: offsets and ids must \
         not begin again. Point \"data.dir\" to the directory that was used with it, or \"object.store.url\" to an unused prefix. \
         If the directory is lost, `thalweg metadata rebuild` with these settings makes its metadata anew from the bucket"
    )]
    PrefixInUse {
        /// The object store.
        url: String,
        /// Whose it is.
        found: String,
        /// The data directory.
        dir: String,
    },
    /// The data directory names objects, the prefix has none.
    #[error(
        "\"data.dir\" {dir} names {objects} objects of cluster {own}, but \"object.store.url\" {url} was never used by it, or \
         was emptied: point \"object.store.url\" to the prefix that holds them"
    )]
    PrefixEmpty {
        /// The object store.
        url: String,
        /// The data directory.
        dir: String,
        /// Its cluster.
        own: String,
        /// How many committed objects it names.
        objects: usize,
    },
    /// The bucket holds metadata that this data directory does not know.
    #[error(
        "\"data.dir\" {dir} is out of date: \"object.store.url\" {url} holds metadata snapshot {found} of epoch {epoch}, newer than \
         all that this directory has seen. Another broker goes on with this cluster, or did: point \"data.dir\" to its directory. If \
         that is lost, move this one away, and `thalweg metadata rebuild` makes the metadata anew from the bucket"
    )]
    OutOfDate {
        /// The data directory.
        dir: String,
        /// The object store.
        url: String,
        /// The snapshot's number.
        found: u64,
        /// The epoch of its writer.
        epoch: i32,
    },
    /// The object store does not answer, and must for this start.
    #[error("\"object.store.url\" {url}: {why}")]
    ObjectStore {
        /// The object store.
        url: String,
        /// What it said.
        why: String,
    },
    /// Something of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried on which path.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<super::ledger::Fault> for ClusterError {
    fn from(fault: super::ledger::Fault) -> ClusterError {
        use super::ledger::Fault;
        match fault {
            Fault::Store(error) => ClusterError::Store(error),
            other @ (Fault::Fenced(_) | Fault::Replaced { .. } | Fault::Damaged(_)) => {
                ClusterError::damaged(other.to_string())
            }
        }
    }
}

impl ClusterError {
    /// Whether what should lie on the local disk is damaged: a rebuild from the bucket mends that.
    pub fn is_damage(&self) -> bool {
        matches!(self, ClusterError::Damaged(_) | ClusterError::Store(MetadataError::Corrupt { .. }))
    }

    /// What is stored cannot be used.
    pub(super) fn damaged(why: impl Into<String>) -> ClusterError {
        ClusterError::Damaged(why.into())
    }
}
