//! Little-endian numbers, counted lists and short texts, with every length checked before it is believed.

use super::FormatError;

/// Reads from the front of a section.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    section: &'static str,
}

macro_rules! number {
    ($get:ident, $put:ident, $ty:ty) => {
        impl Reader<'_> {
            pub(super) fn $get(&mut self) -> Result<$ty, FormatError> {
                Ok(<$ty>::from_le_bytes(self.array()?))
            }
        }

        pub(super) fn $put(out: &mut Vec<u8>, value: $ty) {
            out.extend_from_slice(&value.to_le_bytes());
        }
    };
}

number!(get_u8, put_u8, u8);
number!(get_u16, put_u16, u16);
number!(get_i16, put_i16, i16);
number!(get_u32, put_u32, u32);
number!(get_i32, put_i32, i32);
number!(get_u64, put_u64, u64);
number!(get_i64, put_i64, i64);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], section: &'static str) -> Reader<'a> {
        Reader { rest: bytes, section }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Truncated(self.section))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut raw = [0; N];
        raw.copy_from_slice(self.take(N)?);
        Ok(raw)
    }

    /// A list: a u32 count, refused when so many items of at least `min_bytes` cannot follow, then the items.
    pub(super) fn list<T>(
        &mut self,
        min_bytes: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.get_u32()? as usize;
        if count > self.rest.len() / min_bytes {
            return Err(FormatError::Truncated(self.section));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// A UTF-8 text after its u16 length.
    pub(super) fn text(&mut self) -> Result<String, FormatError> {
        let len = self.get_u16()?;
        let raw = self.take(usize::from(len))?;
        String::from_utf8(raw.to_vec()).map_err(|_| FormatError::Invalid("a text that is not UTF-8"))
    }

    /// The section must be used up.
    pub(super) fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Invalid("bytes after the end of a section")) }
    }
}

/// Writes a list as [`Reader::list`] reads it.
pub(super) fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    put_u32(out, u32::try_from(items.len()).expect("fewer than 2^32 items"));
    items.iter().for_each(|one| item(out, one));
}

/// Writes a text as [`Reader::text`] reads it. Kafka's names have at most 249 bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u16(out, u16::try_from(text.len()).expect("names are shorter than 64 KiB"));
    out.extend_from_slice(text.as_bytes());
}
