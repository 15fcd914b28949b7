//! Headers that the library does not know: conditions and checksums.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use rusoto_s3::CompletedPart;
use thalweg_objectstore::PutCondition;

use crate::{connect::Extras, url::Checksum};

const CRC32C: &str = "x-amz-checksum-crc32c";

/// A part that the store has, and what it was checked with.
#[derive(Clone, Debug)]
pub(crate) struct Uploaded {
    pub(crate) part: CompletedPart,
    pub(crate) checksum: Option<String>,
}

/// The checksum of a body in pieces as headers carry it; `None` when none is wanted.
pub(crate) fn checksum(wanted: Checksum, pieces: &[Bytes]) -> Option<String> {
    let crc = || pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
    (wanted == Checksum::Crc32c).then(|| BASE64_STANDARD.encode(crc().to_be_bytes()))
}

impl Extras {
    /// A put or a completion that takes effect only on its condition.
    pub(crate) fn conditional(self, condition: PutCondition) -> Extras {
        match condition {
            PutCondition::Always => self,
            PutCondition::IfAbsent => self.with("if-none-match", "*"),
        }
    }

    /// The body's checksum, which the server compares with what arrives.
    pub(crate) fn checked(self, checksum: Option<&str>) -> Extras {
        match checksum {
            Some(checksum) => self.with(CRC32C, checksum),
            None => self,
        }
    }

    /// An upload whose parts have checksums.
    pub(crate) fn of_checked_parts(self, wanted: Checksum) -> Extras {
        match wanted {
            Checksum::Crc32c => self.with("x-amz-checksum-algorithm", "CRC32C"),
            Checksum::None => self,
        }
    }

    /// The list of parts with their checksums, which the library's own list has no room for.
    pub(crate) fn completing(mut self, parts: &[Uploaded]) -> Extras {
        if parts.iter().all(|part| part.checksum.is_some()) {
            self.body = Some(part_list(parts));
        }
        self
    }
}

fn part_list(parts: &[Uploaded]) -> String {
    let mut list = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for Uploaded { part, checksum } in parts {
        let tag = escaped(part.e_tag.as_deref().unwrap_or_default());
        let number = part.part_number.unwrap_or_default();
        let checksum = escaped(checksum.as_deref().unwrap_or_default());
        list.push_str(&format!(
            "<Part><ChecksumCRC32C>{checksum}</ChecksumCRC32C><ETag>{tag}</ETag><PartNumber>{number}</PartNumber></Part>"
        ));
    }
    list.push_str("</CompleteMultipartUpload>");
    list
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_whole_body() {
        let pieces = [Bytes::from_static(b"1234"), Bytes::new(), Bytes::from_static(b"56789")];
        // The check value of CRC-32C: e3069283.
        assert_eq!(checksum(Checksum::Crc32c, &pieces).as_deref(), Some("4waSgw=="));
        assert_eq!(checksum(Checksum::Crc32c, &[]).as_deref(), Some("AAAAAA=="));
        assert_eq!(checksum(Checksum::None, &pieces), None);
    }

    #[test]
    fn the_list_of_parts_is_escaped() {
        let part = CompletedPart { e_tag: Some("\"a<b&c\"".to_owned()), part_number: Some(2) };
        let list = part_list(&[Uploaded { part, checksum: Some("x==".to_owned()) }]);
        assert!(list.contains("<ETag>&quot;a&lt;b&amp;c&quot;</ETag><PartNumber>2</PartNumber>"), "{list}");
        assert!(list.contains("<ChecksumCRC32C>x==</ChecksumCRC32C>"), "{list}");
    }
}
