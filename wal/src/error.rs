//! Why a slice does not open, in words that say what to do.

use std::{fmt, io};

use thalweg_record::{Offset, PartitionId};

use crate::Lsn;

/// Why the bytes at an LSN are not the group that should follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupFault {
    /// No group header: never written, torn, or damaged.
    #[error("there is no group header")]
    NoHeader,
    /// A header of a format version that this code does not know.
    #[error("the group has format version {0}")]
    Version(u32),
    /// The lengths in the header contradict each other or the ring.
    #[error("the lengths in the group header cannot be")]
    Lengths,
    /// A group of another lap.
    #[error("the group belongs to another place in the log")]
    OtherLsn,
    /// A group of an opening that cannot have written here.
    #[error("the group was written by another opening of the slice")]
    Incarnation,
    /// A group that does not follow the one before it.
    #[error("the group does not follow the group before it")]
    Chain,
    /// Batch heads, entry table or header are not what was written.
    #[error("the group fails its CRC")]
    GroupCrc,
    /// Entry table and batches contradict each other.
    #[error("the entry table of the group does not fit its batches")]
    Table,
    /// A record batch is not what was written.
    #[error("a record batch in the group fails its CRC")]
    BatchCrc,
}

/// Acknowledged data that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where the first group lies that cannot be read.
    pub at: Lsn,
    /// The same place as an offset on the device, in bytes.
    pub device_offset: u64,
    /// At least all below was acknowledged.
    pub acknowledged: Lsn,
    /// What is wrong there.
    pub fault: GroupFault,
    /// What is known to be missing: partition, first and last offset. Empty when neither the group's table nor what
    /// lies around it tells.
    pub missing: Vec<(PartitionId, Offset, Offset)>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged data is damaged at LSN {} (device offset {}): {}; at least the bytes up to LSN {} were \
             acknowledged",
            self.at, self.device_offset, self.fault, self.acknowledged
        )?;
        for (partition, base, last) in self.missing.iter().take(8) {
            write!(f, "; partition {partition} lacks offsets {base} to {last}")?;
        }
        match self.missing.len().saturating_sub(8) {
            0 => Ok(()),
            more => write!(f, "; and {more} ranges more"),
        }
    }
}

/// Why a slice does not open, or is not created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device failed.
    #[error("cannot {what} the WAL slice: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the device said.
        source: io::Error,
    },
    /// The device has no room for a ring of four of the largest group.
    #[error("the WAL slice has {len} bytes but needs {needed}: raise wal.capacity.bytes or lower wal.max.group.bytes")]
    TooSmall {
        /// Length of the device in bytes.
        len: u64,
        /// The least it needs.
        needed: u64,
    },
    /// Never written.
    #[error("the WAL slice is blank: it was never created, or it was replaced by an empty one")]
    Blank,
    /// Neither superblock is sound.
    #[error(
        "both superblocks of the WAL slice are damaged, or this is no WAL slice; `thalweg wal inspect PATH` shows what is left"
    )]
    NoSuperblock,
    /// Written by a version of the broker with another format.
    #[error("the WAL slice has format version {found}, this broker knows {known}: start the broker that wrote it and \
             drain it", known = crate::format::FORMAT_VERSION)]
    Version {
        /// The version found.
        found: u32,
    },
    /// The slice belongs to somebody else.
    #[error("the WAL slice belongs to {what} {found}, not {expected}: check wal.path and data.dir")]
    Foreign {
        /// What differs.
        what: &'static str,
        /// What the slice says.
        found: String,
        /// What this broker is.
        expected: String,
    },
    /// The device is not as long as when the slice was created.
    #[error(
        "the WAL ring was created with {created} bytes and now has {now}: give the slice its old size, or drain it first"
    )]
    Resized {
        /// Length of the ring when it was created.
        created: u64,
        /// Its length now.
        now: u64,
    },
    /// A greater largest group needs room that the ring does not have.
    #[error(
        "the WAL ring is too full for a greater wal.max.group.bytes: start with the old value until it is uploaded"
    )]
    TooFull,
    /// The slice to create is there already.
    #[error("a WAL slice is there already: it is not overwritten")]
    Exists,
    /// Acknowledged data is damaged.
    #[error(
        "{0}. `thalweg wal inspect PATH` shows what is left; --accept-loss starts without what is missing and all that \
         follows it in this slice"
    )]
    Damaged(Damage),
}

impl OpenError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io { what, source }
    }
}
