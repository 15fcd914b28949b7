//! Kafka's primitive types as records of internal topics use them, with every length checked against what is there.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::records::RecordError;

pub(super) fn put_string(to: &mut BytesMut, text: &str) -> Result<(), RecordError> {
    to.put_i16(i16::try_from(text.len()).map_err(|_| RecordError::TooLong)?);
    to.put_slice(text.as_bytes());
    Ok(())
}

pub(super) fn put_nullable_string(to: &mut BytesMut, text: Option<&str>) -> Result<(), RecordError> {
    match text {
        Some(text) => put_string(to, text),
        None => {
            to.put_i16(-1);
            Ok(())
        }
    }
}

pub(super) fn put_bytes(to: &mut BytesMut, blob: &[u8]) -> Result<(), RecordError> {
    to.put_i32(i32::try_from(blob.len()).map_err(|_| RecordError::TooLong)?);
    to.put_slice(blob);
    Ok(())
}

/// Reads fields off the front of a key or value.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], flexible: bool) -> Reader<'a> {
        Reader { rest: bytes, flexible }
    }

    /// Reads the version in front of a value, of which `newest` is the last known and `flexible` the first with compact
    /// lengths (KIP-482).
    pub(super) fn versioned(bytes: &'a [u8], newest: i16, flexible: i16) -> Result<(i16, Reader<'a>), RecordError> {
        let mut reader = Reader::new(bytes, false);
        let version = reader.int16()?;
        if !(0..=newest).contains(&version) {
            return Err(RecordError::UnknownVersion(version));
        }
        reader.flexible = version >= flexible;
        Ok((version, reader))
    }

    fn raw<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn int16(&mut self) -> Result<i16, RecordError> {
        self.raw().map(i16::from_be_bytes)
    }

    pub(super) fn int32(&mut self) -> Result<i32, RecordError> {
        self.raw().map(i32::from_be_bytes)
    }

    pub(super) fn int64(&mut self) -> Result<i64, RecordError> {
        self.raw().map(i64::from_be_bytes)
    }

    fn unsigned_varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.raw::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| RecordError::Malformed);
            }
        }
        Err(RecordError::Malformed)
    }

    /// A length, `None` for null: compact ones are stored plus one.
    fn length(
        &mut self,
        plain: impl FnOnce(&mut Self) -> Result<i32, RecordError>,
    ) -> Result<Option<usize>, RecordError> {
        let length = match self.flexible {
            true => i64::from(self.unsigned_varint()?) - 1,
            false => i64::from(plain(self)?),
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| RecordError::Malformed),
        }
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(RecordError::Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<Arc<str>>, RecordError> {
        let Some(length) = self.length(|r| r.int16().map(i32::from))? else { return Ok(None) };
        let text = std::str::from_utf8(self.slice(length)?).map_err(|_| RecordError::Malformed)?;
        Ok(Some(text.into()))
    }

    pub(super) fn string(&mut self) -> Result<Arc<str>, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Malformed)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let length = self.length(Reader::int32)?.ok_or(RecordError::Malformed)?;
        self.slice(length).map(Bytes::copy_from_slice)
    }

    /// How many elements follow; not to be allocated on its word.
    pub(super) fn array_length(&mut self) -> Result<usize, RecordError> {
        self.length(Reader::int32)?.ok_or(RecordError::Malformed)
    }

    /// Passes over the tagged fields that end a flexible structure.
    pub(super) fn skip_tagged_fields(&mut self) -> Result<(), RecordError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.slice(length as usize)?;
        }
        Ok(())
    }
}
