//! What requests carry that libraries do not know: conditions and checksums.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use thalweg_objectstore::PutCondition;

use crate::{
    requests::Part,
    url::{Checksum, Encryption},
};

const CRC32C: &str = "x-amz-checksum-crc32c";

/// What an engine adds to the request that its library makes, before it is signed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Extras {
    /// Names in small letters, and values.
    pub headers: Vec<(&'static str, String)>,
    /// Instead of the library's body.
    pub body: Option<String>,
}

impl Extras {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Extras {
        self.headers.push((name, value.into()));
        self
    }

    /// A put or a completion that takes effect only on its condition.
    pub fn conditional(self, condition: PutCondition) -> Extras {
        match condition {
            PutCondition::Always => self,
            PutCondition::IfAbsent => self.with("if-none-match", "*"),
        }
    }

    /// An object that is encrypted where it lies: of puts and of the beginnings of uploads, S3 refuses it elsewhere.
    pub fn encrypted(self, encryption: &Encryption) -> Extras {
        const KIND: &str = "x-amz-server-side-encryption";
        match encryption {
            Encryption::Buckets => self,
            Encryption::Aes256 => self.with(KIND, "AES256"),
            Encryption::Kms(None) => self.with(KIND, "aws:kms"),
            Encryption::Kms(Some(key)) => {
                self.with(KIND, "aws:kms").with("x-amz-server-side-encryption-aws-kms-key-id", key)
            }
        }
    }

    /// The body's checksum, which the server compares with what arrives.
    pub fn checked(self, checksum: Option<&str>) -> Extras {
        match checksum {
            Some(checksum) => self.with(CRC32C, checksum),
            None => self,
        }
    }

    /// An upload whose parts have checksums.
    pub fn of_checked_parts(self, wanted: Checksum) -> Extras {
        match wanted {
            Checksum::Crc32c => self.with("x-amz-checksum-algorithm", "CRC32C"),
            Checksum::None => self,
        }
    }

    /// The list of parts with their checksums, which libraries' own lists have no room for.
    pub fn completing(mut self, parts: &[Part]) -> Extras {
        if parts.iter().all(|part| part.checksum.is_some()) {
            self.body = Some(part_list(parts));
        }
        self
    }
}

/// The checksum of a body in pieces as headers carry it; `None` when none is wanted.
pub fn checksum(wanted: Checksum, pieces: &[Bytes]) -> Option<String> {
    let crc = || pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
    (wanted == Checksum::Crc32c).then(|| BASE64_STANDARD.encode(crc().to_be_bytes()))
}

fn part_list(parts: &[Part]) -> String {
    let mut list = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for Part { number, tag, checksum } in parts {
        let tag = escaped(tag);
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
        let list = part_list(&[Part { number: 2, tag: "\"a<b&c\"".to_owned(), checksum: Some("x==".to_owned()) }]);
        assert!(list.contains("<ETag>&quot;a&lt;b&amp;c&quot;</ETag><PartNumber>2</PartNumber>"), "{list}");
        assert!(list.contains("<ChecksumCRC32C>x==</ChecksumCRC32C>"), "{list}");
    }
}
