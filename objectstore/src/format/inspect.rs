//! An object for the eyes of an operator: `thalweg object inspect URL`.

use std::fmt;

use super::{BlockIndex, FOOTER_BYTES, Footer, FormatError, Properties};
use crate::{ObjectKey, ObjectStore, StoreError};

/// Everything an object says about itself; `Display` prints it.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The object's key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its footer.
    pub footer: Footer,
    /// Its blocks.
    pub index: BlockIndex,
    /// Its properties.
    pub properties: Properties,
}

/// Why an object could not be inspected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InspectError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no object, or a damaged one.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Reads footer, index and properties of an object; its blocks are not read.
///
/// # Errors
/// [`InspectError`].
pub async fn inspect(store: &dyn ObjectStore, key: &ObjectKey) -> Result<Inspection, InspectError> {
    let size_bytes = store.head(key).await?.size_bytes;
    let footer_at = size_bytes.checked_sub(FOOTER_BYTES as u64).ok_or(FormatError::Magic)?;
    let footer = Footer::parse(&store.get_range(key, footer_at..size_bytes).await?, size_bytes)?;
    // One read for both: they lie side by side, and the properties always have bytes.
    let end = store.get_range(key, footer.index_range().start..footer_at).await?;
    let (index, properties) = end.split_at(footer.index.size as usize);
    let index = BlockIndex::parse(&footer, index)?;
    let properties = Properties::parse(&footer, properties)?;
    Ok(Inspection { key: key.clone(), size_bytes, footer, index, properties })
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = &self.properties;
        writeln!(f, "object {} ({}), {} bytes", self.footer.object, self.key, self.size_bytes)?;
        writeln!(f, "cluster {} node {} epoch {}", about.cluster_id, about.node, about.node_epoch)?;
        writeln!(f, "shard {} upload {}", about.shard, about.upload_sequence)?;
        for partition in &about.partitions {
            let blocks = self.index.partition(partition.partition);
            writeln!(
                f,
                "\npartition {} index {} (topic id {}), leader epoch {}, log start {}, settings version {}",
                partition.topic_name,
                partition.partition.index,
                partition.partition.topic,
                partition.leader_epoch,
                partition.log_start,
                partition.settings_version
            )?;
            for (epoch, first) in &partition.epochs {
                writeln!(f, "  leader epoch {epoch} begins at offset {first}")?;
            }
            writeln!(f, "  {} producers, {} aborted transactions", partition.producers.len(), partition.aborted.len())?;
            for block in blocks {
                writeln!(
                    f,
                    "  block at {:>10} +{:<8} offsets {}..={} records {} epoch {} max timestamp {} (batch {}) crc {:08x}",
                    block.position,
                    block.size_bytes,
                    block.base,
                    block.last,
                    block.records,
                    block.leader_epoch,
                    block.max_timestamp.0,
                    block.max_timestamp_base,
                    block.crc
                )?;
            }
        }
        Ok(())
    }
}
