//! A manifest: older entries of one partition, written to the bucket so that the metadata holds one reference in their place.
//!
//! ```text
//! head       magic, version, the manifest's own id, topic id and partition
//! entries    a count, then which part of which object holds which offsets, by offset
//! foot       a CRC-32C over everything before it
//! ```
//!
//! Little-endian. The offsets of the entries are contiguous. A manifest never changes.

use thalweg_record::{LeaderEpoch, Offset, PartitionId, TopicId, Wall};

use super::{
    FormatError,
    wire::{Reader, put_i32, put_i64, put_list, put_text, put_u16, put_u32, put_u64},
};
use crate::ObjectKey;

/// Largest manifest in bytes; a larger one is not believed.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 20;

/// The version this code writes, and the only one it reads.
const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"THALWEGE";
/// The foot.
const CRC_BYTES: usize = 4;
/// An entry without its key.
const LEAST_ENTRY_BYTES: usize = 58;

/// One partition's part of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestEntry {
    /// The object's id.
    pub object: u64,
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub object_bytes: u64,
    /// First offset of the partition in it.
    pub base: Offset,
    /// Last offset of the partition in it.
    pub last: Offset,
    /// Bytes of the partition's batches in it.
    pub size_bytes: u64,
    /// Greatest timestamp of the partition in it.
    pub max_timestamp: Wall,
    /// Leader epoch of its first batch.
    pub epoch: LeaderEpoch,
    /// How often its records were copied from object to object.
    pub level: u32,
}

/// Entries of one partition, by offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Its own id, so that a mixed-up key is found out.
    pub id: u64,
    /// Whose entries.
    pub partition: PartitionId,
    /// At least one; contiguous.
    pub entries: Vec<ManifestEntry>,
}

impl ManifestEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.object);
        put_u64(out, self.object_bytes);
        put_i64(out, self.base.0);
        put_i64(out, self.last.0);
        put_u64(out, self.size_bytes);
        put_i64(out, self.max_timestamp.0);
        put_i32(out, self.epoch.0);
        put_u32(out, self.level);
        put_text(out, self.key.as_str());
    }

    fn parse(read: &mut Reader<'_>) -> Result<ManifestEntry, FormatError> {
        Ok(ManifestEntry {
            object: read.get_u64()?,
            object_bytes: read.get_u64()?,
            base: Offset(read.get_i64()?),
            last: Offset(read.get_i64()?),
            size_bytes: read.get_u64()?,
            max_timestamp: Wall(read.get_i64()?),
            epoch: LeaderEpoch(read.get_i32()?),
            level: read.get_u32()?,
            key: ObjectKey::new(read.text()?).map_err(|_| FormatError::Invalid("a key that is none"))?,
        })
    }
}

impl Manifest {
    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        put_u16(&mut out, VERSION);
        put_u16(&mut out, 0);
        put_u64(&mut out, self.id);
        out.extend_from_slice(&self.partition.topic.0);
        put_i32(&mut out, self.partition.index);
        put_list(&mut out, &self.entries, |out, entry| entry.encode(out));
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out
    }

    /// Checks and reads a whole manifest.
    ///
    /// # Errors
    /// [`FormatError`] when it is none, fails its CRC, or its entries are not contiguous.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, FormatError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::Invalid("it is no manifest"));
        }
        let mut read = Reader::new(&bytes[MAGIC.len()..], "manifest");
        let (version, _reserved) = (read.get_u16()?, read.get_u16()?);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let at = bytes.len().checked_sub(CRC_BYTES).ok_or(FormatError::Truncated("manifest"))?;
        let id = read.get_u64()?;
        if Reader::new(&bytes[at..], "manifest").get_u32()? != crc32c::crc32c(&bytes[..at]) {
            return Err(FormatError::Crc("manifest"));
        }
        let partition = PartitionId { topic: TopicId(read.array()?), index: read.get_i32()? };
        let entries = read.list(LEAST_ENTRY_BYTES, ManifestEntry::parse)?;
        let _crc = read.get_u32()?;
        read.end()?;
        let possible = |entry: &ManifestEntry| entry.base.0 >= 0 && entry.base <= entry.last && entry.last.0 < i64::MAX;
        let side_by_side = |pair: &[ManifestEntry]| pair[0].last.next() == pair[1].base;
        if entries.is_empty() || !entries.iter().all(possible) || !entries.windows(2).all(side_by_side) {
            return Err(FormatError::Invalid("entries that contradict each other"));
        }
        Ok(Manifest { id, partition, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(object: u64, base: i64, last: i64) -> ManifestEntry {
        ManifestEntry {
            object,
            key: ObjectKey::new(format!("data/9e/{object:016x}-n7-e3")).expect("a key"),
            object_bytes: 4096,
            base: Offset(base),
            last: Offset(last),
            size_bytes: 900,
            max_timestamp: Wall(1_700_000_000_000),
            epoch: LeaderEpoch(3),
            level: 1,
        }
    }

    fn sample() -> Manifest {
        let partition = PartitionId { topic: TopicId([0xab; 16]), index: 258 };
        Manifest { id: 0x0102_0304, partition, entries: vec![entry(8, 10, 19), entry(9, 20, 20)] }
    }

    #[test]
    fn the_bytes_do_not_change() {
        let golden: String = include_str!("manifest.hex").split_whitespace().collect();
        let now: String = sample().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(now, golden);
    }

    #[test]
    fn a_manifest_comes_back() {
        assert_eq!(Manifest::parse(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn damage_anywhere_is_found() {
        let bytes = sample().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert!(Manifest::parse(&damaged).is_err(), "at {at}");
            assert!(Manifest::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(Manifest::parse(&newer), Err(FormatError::Version(2)));
    }

    /// The bytes of `sample` with others in one place, and the CRC that goes with them.
    fn with(at: usize, other: &[u8]) -> Vec<u8> {
        let mut bytes = sample().encode();
        bytes[at..at + other.len()].copy_from_slice(other);
        let end = bytes.len() - CRC_BYTES;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn what_is_said_with_a_right_checksum_is_checked_too() {
        let (count, first_base) = (40, 60);
        assert_eq!(Manifest::parse(&with(count, &u32::MAX.to_le_bytes())), Err(FormatError::Truncated("manifest")));
        assert!(Manifest::parse(&with(count, &1u32.to_le_bytes())).is_err(), "bytes after the last entry");
        for base in [20i64, -1] {
            let found = Manifest::parse(&with(first_base, &base.to_le_bytes()));
            assert_eq!(found, Err(FormatError::Invalid("entries that contradict each other")), "{base}");
        }
        let gap = Manifest { entries: vec![entry(8, 10, 18), entry(9, 20, 20)], ..sample() };
        let none = Manifest { entries: Vec::new(), ..sample() };
        for wrong in [gap, none] {
            assert!(Manifest::parse(&wrong.encode()).is_err());
        }
    }
}
