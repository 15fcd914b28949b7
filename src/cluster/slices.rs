//! Which WAL slices this broker has: a slice with records in it must not vanish unnoticed.
//!
//! A slice is recorded before anything is appended to it, and marked when it was closed empty. At the start the broker
//! compares [`Cluster::slices`] with the files it finds; a recorded slice that is missing and not closed empty stops it.

use std::path::PathBuf;

use thalweg_record::ShardId;

use super::{
    error::ClusterError,
    keys, load,
    open::Cluster,
    schema::{self, SliceRow},
    store::Write,
};

/// A WAL slice, as recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceRecord {
    /// The slice's own id, which its superblock carries.
    pub id: [u8; 16],
    /// The shard that wrote it last.
    pub shard: ShardId,
    /// Where it lies.
    pub path: PathBuf,
    /// Closed with nothing in it that is not committed: it may be missing.
    pub closed_empty: bool,
}

impl Cluster {
    /// All recorded slices, by id.
    ///
    /// # Errors
    /// The store fails.
    pub fn slices(&self) -> Result<Vec<SliceRecord>, ClusterError> {
        self.slices_under(keys::slices(self.settings.broker.node))
    }

    /// All slices that were given up as lost (`--accept-loss`), by id, for ever: each may be found again, and hold what nothing else does.
    ///
    /// # Errors
    /// The store fails.
    pub fn lost_slices(&self) -> Result<Vec<SliceRecord>, ClusterError> {
        self.slices_under(keys::lost_slices(self.settings.broker.node))
    }

    fn slices_under(&self, prefix: Vec<u8>) -> Result<Vec<SliceRecord>, ClusterError> {
        let mut found = Vec::new();
        load::scan(&*self.ledger.store(), &prefix, |key, _, row: SliceRow| {
            let id = key[prefix.len()..].try_into().map_err(|_| "bad slice id")?;
            let (shard, path) = (ShardId(row.shard), PathBuf::from(row.path));
            found.push(SliceRecord { id, shard, path, closed_empty: row.closed_empty });
            Ok(())
        })?;
        Ok(found)
    }

    /// Records a slice, or what changed of it; durable when this returns. Blocks.
    ///
    /// # Errors
    /// The store fails, the path is not UTF-8, or this broker's epoch is fenced.
    pub fn record_slice(&self, slice: &SliceRecord) -> Result<(), ClusterError> {
        self.write_slices(&[Write::Put(keys::slice(self.settings.broker.node, slice.id), row(slice)?)])
    }

    /// Records the slices `new` in the place of `old`, of which some may be `lost`, in one transaction: some of both could be taken for the
    /// whole of another set, and what the others hold for gone. As [`Cluster::record_slice`].
    ///
    /// # Errors
    /// As [`Cluster::record_slice`].
    pub fn replace_slices(
        &self,
        old: &[SliceRecord],
        new: &[SliceRecord],
        lost: &[SliceRecord],
    ) -> Result<(), ClusterError> {
        let node = self.settings.broker.node;
        let mut writes: Vec<Write> = old.iter().map(|slice| Write::Delete(keys::slice(node, slice.id))).collect();
        for slice in new {
            writes.push(Write::Put(keys::slice(node, slice.id), row(slice)?));
        }
        for slice in lost {
            writes.push(Write::Put(keys::lost_slice(node, slice.id), row(slice)?));
        }
        writes.extend(self.outdated_owners());
        self.write_slices(&writes)
    }

    fn write_slices(&self, writes: &[Write]) -> Result<(), ClusterError> {
        self.ledger.write(vec![], writes).map_err(ClusterError::from)?;
        Ok(self.ledger.store().sync()?)
    }
}

/// What is stored of a slice.
fn row(slice: &SliceRecord) -> Result<Vec<u8>, ClusterError> {
    let path = slice.path.to_str().ok_or_else(|| ClusterError::Io {
        what: format!("\"wal.path\" {}", slice.path.display()),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8"),
    })?;
    let row = SliceRow { shard: slice.shard.0, path: path.to_owned(), closed_empty: slice.closed_empty };
    Ok(schema::encode(&row))
}
