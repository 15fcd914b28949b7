//! The bytes of a metadata snapshot, version 1: every entry of the metadata store as of one revision.
//!
//! ```text
//! head      magic, version, then who wrote it, when, and of which revision; with a CRC-32C of its own
//! entries   key, revision and value of each, in key order
//! foot      their number, a CRC-32C over everything before it, and the magic once more
//! ```
//!
//! Numbers are little-endian. Values are what the store holds ([`super::super::schema`]), with versions of their own. Pure
//! code; every length read is checked against what is there before anything is allocated for it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::cluster::store::{Revision, Versioned};

/// The version this code writes, and the only one it reads.
pub(in crate::cluster) const VERSION: u16 = 1;
/// The longest head: a reader of the head alone asks for so much.
pub(in crate::cluster) const MAX_HEAD_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"THALWEGM";
/// Count, CRC, magic.
const FOOT_BYTES: usize = 8 + 4 + 8;

/// Who wrote a snapshot, and of what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cluster) struct Head {
    /// Kafka's cluster id.
    pub(in crate::cluster) cluster_id: String,
    pub(in crate::cluster) node: i32,
    /// The writer's epoch.
    pub(in crate::cluster) node_epoch: i32,
    /// Snapshots of a prefix are numbered; it is the key too.
    pub(in crate::cluster) sequence: u64,
    /// The revision of the store that it shows.
    pub(in crate::cluster) revision: Revision,
    /// Milliseconds since 1970.
    pub(in crate::cluster) written_at_ms: i64,
}

/// An entry of the metadata store.
pub(in crate::cluster) type Entry = (Vec<u8>, Versioned);

/// A snapshot, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cluster) struct MetadataSnapshot {
    pub(in crate::cluster) head: Head,
    /// In key order.
    pub(in crate::cluster) entries: Vec<Entry>,
}

/// Why bytes are no snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in crate::cluster) enum Fault {
    #[error("it is not a metadata snapshot")]
    Magic,
    #[error("it has version {0}, this version of Thalweg reads {VERSION}")]
    Version(u16),
    #[error("it ends too early")]
    Truncated,
    #[error("its checksum is wrong")]
    Crc,
    #[error("it is not well formed: {0}")]
    Invalid(&'static str),
}

impl Head {
    fn encode(&self) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_u16_le(u16::try_from(self.cluster_id.len()).expect("a cluster id has 22 characters"));
        body.put_slice(self.cluster_id.as_bytes());
        body.put_i32_le(self.node);
        body.put_i32_le(self.node_epoch);
        body.put_u64_le(self.sequence);
        body.put_u64_le(self.revision.0);
        body.put_i64_le(self.written_at_ms);
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(u16::try_from(body.len()).expect("a head is short"));
        out.put_slice(&body);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    /// The head at the beginning of `bytes`, and its length.
    ///
    /// # Errors
    /// [`Fault`].
    pub(in crate::cluster) fn decode(bytes: &[u8]) -> Result<(Head, usize), Fault> {
        let mut read = bytes;
        if read.len() < MAGIC.len() || read[..MAGIC.len()] != MAGIC {
            return Err(Fault::Magic);
        }
        read.advance(MAGIC.len());
        let version = read.try_get_u16_le().map_err(|_| Fault::Truncated)?;
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        let body = usize::from(read.try_get_u16_le().map_err(|_| Fault::Truncated)?);
        let checked = MAGIC.len() + 4 + body;
        let (head, mut rest) = bytes.split_at_checked(checked).ok_or(Fault::Truncated)?;
        if rest.try_get_u32_le().map_err(|_| Fault::Truncated)? != crc32c::crc32c(head) {
            return Err(Fault::Crc);
        }
        let cluster_id = String::from_utf8(text(&mut read)?.to_vec()).map_err(|_| Fault::Invalid("the cluster id"))?;
        let head = Head {
            cluster_id,
            node: read.try_get_i32_le().map_err(|_| Fault::Truncated)?,
            node_epoch: read.try_get_i32_le().map_err(|_| Fault::Truncated)?,
            sequence: read.try_get_u64_le().map_err(|_| Fault::Truncated)?,
            revision: Revision(read.try_get_u64_le().map_err(|_| Fault::Truncated)?),
            written_at_ms: read.try_get_i64_le().map_err(|_| Fault::Truncated)?,
        };
        Ok((head, checked + 4))
    }
}

/// A short text after its u16 length.
fn text<'a>(read: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let len = read.try_get_u16_le().map_err(|_| Fault::Truncated)?;
    take(read, usize::from(len))
}

fn take<'a>(read: &mut &'a [u8], len: usize) -> Result<&'a [u8], Fault> {
    let (taken, rest) = read.split_at_checked(len).ok_or(Fault::Truncated)?;
    *read = rest;
    Ok(taken)
}

/// Builds a snapshot page by page, so that others can work in between.
#[derive(Debug)]
pub(in crate::cluster) struct Encoder {
    parts: Vec<Bytes>,
    crc: u32,
    count: u64,
    last: Vec<u8>,
}

impl Encoder {
    pub(in crate::cluster) fn new(head: &Head) -> Encoder {
        let head = head.encode().freeze();
        assert!(head.len() <= MAX_HEAD_BYTES, "a head is short");
        Encoder { crc: crc32c::crc32c(&head), parts: vec![head], count: 0, last: Vec::new() }
    }

    /// Adds entries that follow, in key order, what was added before.
    pub(in crate::cluster) fn push(&mut self, entries: &[Entry]) {
        let mut page = BytesMut::new();
        for (key, Versioned { value, revision }) in entries {
            assert!(*key > self.last, "entries come in key order");
            self.last.clone_from(key);
            page.put_u16_le(u16::try_from(key.len()).expect("keys have at most 1,024 bytes"));
            page.put_slice(key);
            page.put_u64_le(revision.0);
            page.put_u32_le(u32::try_from(value.len()).expect("a value is smaller than 4 GiB"));
            page.put_slice(value);
        }
        self.count += entries.len() as u64;
        self.add(page.freeze());
    }

    fn add(&mut self, part: Bytes) {
        self.crc = crc32c::crc32c_append(self.crc, &part);
        self.parts.push(part);
    }

    /// The snapshot's bytes, in order.
    pub(in crate::cluster) fn finish(mut self) -> Vec<Bytes> {
        self.add(Bytes::copy_from_slice(&self.count.to_le_bytes()));
        let mut foot = BytesMut::new();
        foot.put_u32_le(self.crc);
        foot.put_slice(&MAGIC);
        self.parts.push(foot.freeze());
        self.parts
    }
}

impl MetadataSnapshot {
    /// Checks and reads a whole snapshot.
    ///
    /// # Errors
    /// [`Fault`].
    pub(in crate::cluster) fn decode(bytes: &[u8]) -> Result<MetadataSnapshot, Fault> {
        let (head, at) = Head::decode(bytes)?;
        let foot_at = bytes.len().checked_sub(FOOT_BYTES).filter(|foot| *foot >= at).ok_or(Fault::Truncated)?;
        let mut foot = &bytes[foot_at..];
        let (count, crc) = (foot.get_u64_le(), foot.get_u32_le());
        if foot != MAGIC {
            return Err(Fault::Truncated);
        }
        if crc32c::crc32c(&bytes[..foot_at + 8]) != crc {
            return Err(Fault::Crc);
        }
        let mut read = &bytes[at..foot_at];
        let mut entries: Vec<Entry> = Vec::new();
        while !read.is_empty() {
            let key = text(&mut read)?.to_vec();
            let revision = Revision(read.try_get_u64_le().map_err(|_| Fault::Truncated)?);
            let len = read.try_get_u32_le().map_err(|_| Fault::Truncated)?;
            let value = take(&mut read, len as usize)?.to_vec();
            if entries.last().is_some_and(|(before, _)| *before >= key) || key.is_empty() || key[0] == 0 {
                return Err(Fault::Invalid("its keys do not ascend"));
            }
            entries.push((key, Versioned { value, revision }));
        }
        if entries.len() as u64 != count {
            return Err(Fault::Invalid("the number of entries"));
        }
        Ok(MetadataSnapshot { head, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            cluster_id: "kq7mXY0zS0-Gx2pLw1bT3A".into(),
            node: 7,
            node_epoch: 3,
            sequence: 0x0102_0304,
            revision: Revision(99),
            written_at_ms: 1_700_000_000_000,
        }
    }

    fn entry(key: &str, value: &str, revision: u64) -> Entry {
        (key.into(), Versioned { value: value.into(), revision: Revision(revision) })
    }

    fn encoded(pages: &[&[Entry]]) -> Vec<u8> {
        let mut encoder = Encoder::new(&head());
        pages.iter().for_each(|page| encoder.push(page));
        encoder.finish().concat()
    }

    fn sample() -> Vec<u8> {
        encoded(&[&[entry("cluster", "{}", 1)], &[], &[entry("topic/a", "one", 2), entry("topic/b", "", 99)]])
    }

    #[test]
    fn the_bytes_do_not_change() {
        let golden: String = include_str!("golden.hex").split_whitespace().collect();
        let now: String = sample().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(now, golden);
    }

    #[test]
    fn a_snapshot_comes_back() {
        let read = MetadataSnapshot::decode(&sample()).expect("own bytes");
        assert_eq!(read.head, head());
        let entries = [entry("cluster", "{}", 1), entry("topic/a", "one", 2), entry("topic/b", "", 99)];
        assert_eq!(read.entries, entries);
        assert_eq!(MetadataSnapshot::decode(&encoded(&[])).expect("empty").entries, []);
    }

    #[test]
    fn the_head_is_read_alone() {
        let bytes = sample();
        assert_eq!(Head::decode(&bytes[..MAX_HEAD_BYTES.min(bytes.len())]).expect("a head").0, head());
        assert_eq!(Head::decode(&bytes[..20]), Err(Fault::Truncated));
    }

    #[test]
    fn damage_anywhere_is_found() {
        let bytes = sample();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x20;
            assert!(MetadataSnapshot::decode(&damaged).is_err(), "at {at}");
            assert!(MetadataSnapshot::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert_eq!(MetadataSnapshot::decode(&newer), Err(Fault::Version(2)));
    }
}
