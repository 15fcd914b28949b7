//! The port: what Thalweg asks of a metadata store.
//!
//! A small ordered map with revisions, after etcd's model. Every write that matters goes through
//! [`MetadataStore::transact`] and compares a revision or a value; there is no plain put. Watches and leases belong to the
//! engine for several brokers and are not part of the port yet: a single broker is the only writer of its store.

use std::{collections::BTreeSet, fmt, io, path::PathBuf};

/// A moment in the life of the store: each applied transaction that writes takes the next one. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value with the revision that wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// The transaction that wrote it.
    pub revision: Revision,
}

/// A condition of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key does not exist.
    Absent(Vec<u8>),
    /// The key's value was last written by this revision.
    Revision(Vec<u8>, Revision),
    /// The key has this value.
    Value(Vec<u8>, Vec<u8>),
}

/// A write of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// Creates or replaces.
    Put(Vec<u8>, Vec<u8>),
    /// Deletes; nothing happens when the key does not exist.
    Delete(Vec<u8>),
}

impl Write {
    /// The key written.
    pub fn key(&self) -> &[u8] {
        match self {
            Write::Put(key, _) | Write::Delete(key) => key,
        }
    }
}

/// What came of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transacted {
    /// Every comparison held and every write is in, under this revision (the newest one when there was nothing to write).
    Applied(Revision),
    /// A comparison did not hold; nothing was written.
    Refused,
}

/// What is wrong with a store. None of these passes by itself.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Another process has it open.
    #[error("metadata store {} is in use by another process: stop it, or give this broker a \"data.dir\" of its own", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is not a metadata store of Thalweg ({why}): point \"data.dir\" to an empty directory or to this broker's own", path.display())]
    Foreign {
        /// The store's directory.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// What was durable is damaged or gone.
    #[error("metadata store {} is damaged ({why}): restore the directory from a copy made while the broker was stopped", path.display())]
    Corrupt {
        /// The store's directory.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// The operating system refused.
    #[error("metadata store {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A metadata store. Calls block; they may come from several threads.
///
/// Keys are 1..=1,024 bytes and do not begin with a zero byte (the engine's own).
pub trait MetadataStore: Send + Sync + 'static {
    /// The newest revision; 0 in an empty store.
    fn revision(&self) -> Revision;

    /// A key's value.
    ///
    /// # Errors
    /// When the engine fails; so for all calls.
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetadataError>;

    /// Up to `limit` keys that begin with `prefix`, in byte order, after `after` (exclusive).
    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Versioned)>, MetadataError>;

    /// If every comparison holds, makes all writes, atomically also across a crash. A key is written at most once in a
    /// transaction. What is applied is visible at once and durable after the next [`MetadataStore::sync`].
    fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Transacted, MetadataError>;

    /// Transactions from now on take revisions above `revision`, if that is ahead: for content taken over from another store.
    fn skip_to(&self, revision: Revision) -> Result<(), MetadataError>;

    /// Returns when everything applied before the call survives the loss of power.
    fn sync(&self) -> Result<(), MetadataError>;
}

/// Checks the rules of the port that a caller inside this process must keep.
pub(super) fn check_writes(writes: &[Write]) {
    for key in writes.iter().map(Write::key) {
        assert!(!key.is_empty() && key.len() <= 1024 && key[0] != 0, "metadata key {key:?} breaks the port's rules");
    }
    let keys: BTreeSet<&[u8]> = writes.iter().map(Write::key).collect();
    assert_eq!(keys.len(), writes.len(), "a metadata key is written twice in one transaction");
}
