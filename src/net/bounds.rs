//! Bounds of a request body, before the protocol crate decodes it.
//!
//! The crate reserves memory for as many elements as a length claims: 25 bytes could ask for 512 GiB, and a failed
//! allocation ends the process. So the body is walked first by a table of shapes: every length must fit in what is left,
//! and what the elements will take in memory must stay in proportion to the body.

mod shapes;

use shapes::{Field, Kind, SHAPES, Shape};

use super::Undecodable;

/// What one struct of an array may take in memory while the array grows: the largest of the crate's, its map of tagged fields included.
const STRUCT_BYTES: usize = 384;
/// What one plain element of an array may take, and what is told of it in the answer.
const ELEMENT_BYTES: usize = 256;
/// What one unknown tagged field may take, its share of a map's node included.
const TAGGED_BYTES: usize = 128;
/// Memory that a body of any size may ask for.
const FREE_BYTES: usize = 1 << 20;
/// Memory per byte of body beyond that.
const PER_BODY_BYTE: usize = 64;
/// The longest text, as in Kafka: texts of versions with compact lengths must fit into the answers of the others.
const LONGEST_TEXT: usize = i16::MAX as usize;
/// Memory that no body may exceed.
const MOST_BYTES: usize = 64 << 20;

/// Walks a body, and says how many bytes of memory its decoded elements may take, strings and records aside: they stay
/// slices of the body.
///
/// # Errors
/// [`Undecodable`] when a length does not fit, when it asks for too much, or when the key has no shape.
pub fn check(key: i16, version: i16, body: &[u8]) -> Result<usize, Undecodable> {
    let shape = SHAPES.iter().find(|shape| shape.key == key).ok_or_else(|| refused("no shape is known"))?;
    let mut walk = Walk::new(shape, version, body);
    walk.fields(shape.fields)?;
    Ok(walk.cost)
}

fn refused(what: &str) -> Undecodable {
    Undecodable(format!("request body: {what}"))
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    cost: usize,
    allowed: usize,
}

impl<'a> Walk<'a> {
    fn new(shape: &Shape, version: i16, body: &'a [u8]) -> Walk<'a> {
        let allowed = (FREE_BYTES + body.len() * PER_BODY_BYTE).min(MOST_BYTES);
        Walk { rest: body, version, flexible: version >= shape.flexible, cost: 0, allowed }
    }

    fn skip(&mut self, len: usize) -> Result<&'a [u8], Undecodable> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| refused("a length exceeds what is left"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned varint of 32 bits.
    fn varint(&mut self) -> Result<u32, Undecodable> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.skip(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| refused("a number is too large"));
            }
        }
        Err(refused("a number is too long"))
    }

    /// The length of a string, bytes or an array; null counts as empty.
    fn length(&mut self, width: usize) -> Result<usize, Undecodable> {
        if self.flexible {
            return Ok((self.varint()? as usize).saturating_sub(1));
        }
        let raw = self.skip(width)?;
        let sign = if raw[0] & 0x80 == 0 { 0 } else { -1 };
        let length = raw.iter().fold(sign, |length: i64, byte| length << 8 | i64::from(*byte));
        match length {
            -1 => Ok(0),
            length => usize::try_from(length).map_err(|_| refused("a length is negative")),
        }
    }

    fn charge(&mut self, count: usize, each: usize) -> Result<(), Undecodable> {
        self.cost = self.cost.saturating_add(count.saturating_mul(each));
        if self.cost > self.allowed { Err(refused("too many elements")) } else { Ok(()) }
    }

    fn fields(&mut self, fields: &'static [Field]) -> Result<(), Undecodable> {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.kind(&field.kind)?;
        }
        if self.flexible { self.tagged(fields) } else { Ok(()) }
    }

    /// The tagged fields that end every struct of a flexible version (KIP-482). The crate decodes the known ones without
    /// a look at their size, so the size must be right.
    fn tagged(&mut self, fields: &'static [Field]) -> Result<(), Undecodable> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let value = self.skip(size)?;
            let known = fields.iter().find(|field| field.tag == Some(tag) && field.is_in(self.version));
            let Some(field) = known else {
                self.charge(1, TAGGED_BYTES)?;
                continue;
            };
            let after = std::mem::replace(&mut self.rest, value);
            self.kind(&field.kind)?;
            if !self.rest.is_empty() {
                return Err(refused("a tagged field is longer than its value"));
            }
            self.rest = after;
        }
        Ok(())
    }

    fn kind(&mut self, kind: &'static Kind) -> Result<(), Undecodable> {
        match kind {
            Kind::Fixed(len) => self.skip(*len).map(drop),
            Kind::Str => {
                let len = self.length(2)?;
                if len > LONGEST_TEXT {
                    return Err(refused("a text is longer than 32767 bytes"));
                }
                self.skip(len).map(drop)
            }
            Kind::Bytes => {
                let len = self.length(4)?;
                self.skip(len).map(drop)
            }
            Kind::List(element) => {
                let count = self.count(ELEMENT_BYTES)?;
                (0..count).try_for_each(|_| self.kind(element))
            }
            Kind::Structs(fields) => {
                let count = self.count(STRUCT_BYTES)?;
                (0..count).try_for_each(|_| self.fields(fields))
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Optional(fields) => match self.skip(1)?[0] {
                1 => self.fields(fields),
                _ => Ok(()),
            },
        }
    }

    /// The length of an array, whose elements take at least a byte each.
    fn count(&mut self, each: usize) -> Result<usize, Undecodable> {
        let count = self.length(4)?;
        if count > self.rest.len() {
            return Err(refused("an array is longer than what is left"));
        }
        self.charge(count, each)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
