//! The last 64 bytes of an object.

use std::ops::Range;

use super::{
    ENTRY_BYTES, FormatError, MAX_INDEX_BYTES,
    wire::{Reader, put_u16, put_u32, put_u64},
};

/// Size of the footer in bytes.
pub const FOOTER_BYTES: usize = 64;
/// The version this code writes, and the only one it reads.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"THALWEGO";
/// The part of the footer before its own CRC.
const CHECKED: usize = 52;

/// Where the sections of an object are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footer {
    /// The object's own id, so that a mixed-up key is found out.
    pub object: u64,
    /// Number of blocks, and of index entries.
    pub blocks: u32,
    pub(super) index: Section,
    pub(super) properties: Section,
}

/// A checksummed range of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Section {
    pub(super) position: u64,
    pub(super) size: u32,
    pub(super) crc: u32,
}

impl Section {
    pub(super) fn of(position: u64, bytes: &[u8]) -> Section {
        let size = u32::try_from(bytes.len()).expect("a section is smaller than 4 GiB");
        Section { position, size, crc: crc32c::crc32c(bytes) }
    }

    fn range(&self) -> Range<u64> {
        self.position..self.position + u64::from(self.size)
    }

    pub(super) fn check(&self, bytes: &[u8], name: &'static str) -> Result<(), FormatError> {
        if bytes.len() != self.size as usize {
            return Err(FormatError::Truncated(name));
        }
        if crc32c::crc32c(bytes) == self.crc { Ok(()) } else { Err(FormatError::Crc(name)) }
    }
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for section in [self.index, self.properties] {
            put_u64(&mut out, section.position);
            put_u32(&mut out, section.size);
            put_u32(&mut out, section.crc);
        }
        put_u64(&mut out, self.object);
        put_u32(&mut out, self.blocks);
        put_u32(&mut out, 0);
        put_u16(&mut out, VERSION);
        put_u16(&mut out, 0);
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out.extend_from_slice(&MAGIC);
        out
    }

    /// The footer of an object of `object_bytes`, from its last [`FOOTER_BYTES`] (`tail` may hold more before them).
    ///
    /// # Errors
    /// [`FormatError`] when it is not a footer, fails its CRC, or names sections that do not fill the object.
    pub fn parse(tail: &[u8], object_bytes: u64) -> Result<Footer, FormatError> {
        let from = tail.len().checked_sub(FOOTER_BYTES).ok_or(FormatError::Truncated("footer"))?;
        let raw = &tail[from..];
        if raw[CHECKED + 4..] != MAGIC {
            return Err(FormatError::Magic);
        }
        let mut read = Reader::new(raw, "footer");
        let mut section =
            || Ok::<_, FormatError>(Section { position: read.get_u64()?, size: read.get_u32()?, crc: read.get_u32()? });
        let (index, properties) = (section()?, section()?);
        let (object, blocks, _reserved) = (read.get_u64()?, read.get_u32()?, read.get_u32()?);
        let (version, _reserved, crc) = (read.get_u16()?, read.get_u16()?, read.get_u32()?);
        if crc32c::crc32c(&raw[..CHECKED]) != crc {
            return Err(FormatError::Crc("footer"));
        }
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let footer = Footer { object, blocks, index, properties };
        footer.check_extent(object_bytes)?;
        Ok(footer)
    }

    /// Index, properties and footer must fill the end of the object without a gap.
    fn check_extent(&self, object_bytes: u64) -> Result<(), FormatError> {
        let index_end = self.index.position.checked_add(u64::from(self.index.size));
        let properties_end = self.properties.position.checked_add(u64::from(self.properties.size));
        let footer_at = object_bytes.checked_sub(FOOTER_BYTES as u64);
        if index_end != Some(self.properties.position) || properties_end.is_none() || properties_end != footer_at {
            return Err(FormatError::Invalid("the footer's sections do not fill the object"));
        }
        if self.index.size as usize > MAX_INDEX_BYTES
            || u64::from(self.index.size) != u64::from(self.blocks) * ENTRY_BYTES as u64
        {
            return Err(FormatError::Invalid("the size of the index does not fit its number of blocks"));
        }
        Ok(())
    }

    /// Where the index is: read it for [`super::BlockIndex::parse`].
    pub fn index_range(&self) -> Range<u64> {
        self.index.range()
    }

    /// Where the properties are: read them for [`super::Properties::parse`].
    pub fn properties_range(&self) -> Range<u64> {
        self.properties.range()
    }
}
