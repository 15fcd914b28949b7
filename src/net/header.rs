//! The request header, versions 1 and 2, and what precedes an answer's body.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{messages::ApiKey, protocol::StrBytes};

use super::Undecodable;

/// A request's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHead {
    /// The key, as sent.
    pub key: i16,
    /// The version, as sent.
    pub version: i16,
    /// What the client chose to tell its requests apart.
    pub correlation: i32,
    /// The client id.
    pub client_id: Option<StrBytes>,
}

fn broken(what: &str) -> Undecodable {
    Undecodable(format!("request header: {what}"))
}

impl RequestHead {
    /// Takes key, version and correlation id off `frame`: the part that every version has.
    ///
    /// # Errors
    /// [`Undecodable`] when the frame is shorter.
    pub fn take_fixed(frame: &mut Bytes) -> Result<RequestHead, Undecodable> {
        let mut number = || frame.try_get_i16().map_err(|_| broken("too short"));
        let (key, version) = (number()?, number()?);
        let correlation = frame.try_get_i32().map_err(|_| broken("too short"))?;
        Ok(RequestHead { key, version, correlation, client_id: None })
    }

    /// Takes the rest of the header off `frame`, so that the body is left.
    ///
    /// # Errors
    /// [`Undecodable`] when the frame does not hold a header of the version that `key` and the request's version have.
    pub fn take_rest(&mut self, key: ApiKey, frame: &mut Bytes) -> Result<(), Undecodable> {
        let length = frame.try_get_i16().map_err(|_| broken("no client id"))?;
        if length >= 0 {
            let length = length as usize;
            if length > frame.len() {
                return Err(broken("client id is cut"));
            }
            let text = Bytes::copy_from_slice(&frame.split_to(length));
            self.client_id = Some(StrBytes::from_utf8(text).map_err(|_| broken("client id is not UTF-8"))?);
        }
        if key.request_header_version(self.version) >= 2 {
            skip_tagged_fields(frame)?;
        }
        Ok(())
    }
}

fn skip_tagged_fields(frame: &mut Bytes) -> Result<(), Undecodable> {
    let count = unsigned_varint(frame)?;
    for _ in 0..count {
        let _tag = unsigned_varint(frame)?;
        let size = unsigned_varint(frame)? as usize;
        if size > frame.len() {
            return Err(broken("a tagged field is cut"));
        }
        frame.advance(size);
    }
    Ok(())
}

fn unsigned_varint(frame: &mut Bytes) -> Result<u32, Undecodable> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = frame.try_get_u8().map_err(|_| broken("a number is cut"))?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(broken("a number is too long"))
}

/// Writes an answer's length and header in front of a body of `body_len` bytes. ApiVersions always has header version 0,
/// so that a client that knows nothing yet can read it.
///
/// # Errors
/// When the answer is longer than 2 GiB, which no frame can be.
pub fn put_response_head(
    out: &mut BytesMut,
    key: ApiKey,
    version: i16,
    correlation: i32,
    body_len: usize,
) -> io::Result<()> {
    let length = response_head_len(key, version) + body_len;
    let length = i32::try_from(length).map_err(|_| io::Error::other(format!("an answer of {length} bytes")))?;
    out.put_i32(length);
    out.put_i32(correlation);
    if is_tagged(key, version) {
        out.put_u8(0);
    }
    Ok(())
}

/// Length of an answer's header, without the length in front of it.
pub fn response_head_len(key: ApiKey, version: i16) -> usize {
    4 + usize::from(is_tagged(key, version))
}

fn is_tagged(key: ApiKey, version: i16) -> bool {
    key != ApiKey::ApiVersions && key.response_header_version(version) >= 1
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::RequestHeader,
        protocol::{Encodable, StrBytes},
    };

    use super::*;

    fn encoded(key: ApiKey, version: i16, client: Option<&'static str>) -> Bytes {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(client.map(StrBytes::from_static_str))
            .with_unknown_tagged_field(5, Bytes::from_static(b"later"));
        let mut out = BytesMut::new();
        let header_version = key.request_header_version(version);
        let header = if header_version < 2 { header.with_unknown_tagged_fields(Default::default()) } else { header };
        header.encode(&mut out, header_version).expect("a header");
        out.put_slice(b"body");
        out.freeze()
    }

    #[test]
    fn headers_of_both_versions_leave_the_body() {
        for (version, client) in [(0, Some("kcat")), (8, None), (9, Some("")), (12, Some("java"))] {
            let mut frame = encoded(ApiKey::Metadata, version, client);
            let mut head = RequestHead::take_fixed(&mut frame).expect("fixed part");
            head.take_rest(ApiKey::Metadata, &mut frame).expect("rest");
            assert_eq!((head.key, head.version, head.correlation), (3, version, 77));
            assert_eq!(head.client_id.as_deref(), client);
            assert_eq!(&frame[..], b"body");
        }
    }

    #[test]
    fn cut_headers_are_refused() {
        let whole = encoded(ApiKey::Metadata, 12, Some("java"));
        for cut in 0..whole.len() - 4 {
            let mut frame = whole.slice(..cut);
            let outcome =
                RequestHead::take_fixed(&mut frame).and_then(|mut head| head.take_rest(ApiKey::Metadata, &mut frame));
            assert!(outcome.is_err(), "cut at {cut}");
        }
    }
}
