//! The topics in a consumer's metadata (`ConsumerProtocolSubscription`), the only part of it that a broker reads.

use std::sync::Arc;

/// The topics that `metadata` subscribes to; `None` when it is not a subscription. Nothing is allocated on the word of a
/// length in it.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<Vec<Arc<str>>> {
    let (version, mut rest) = take::<2>(metadata)?;
    if i16::from_be_bytes(version) < 0 {
        return None;
    }
    let count = i32::from_be_bytes(advance::<4>(&mut rest)?);
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(i16::from_be_bytes(advance::<2>(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        topics.push(Arc::from(std::str::from_utf8(name).ok()?));
        rest = after;
    }
    Some(topics)
}

fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk::<N>().map(|(head, rest)| (*head, rest))
}

fn advance<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = take::<N>(rest)?;
    *rest = after;
    Some(head)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::{
        messages::ConsumerProtocolSubscription,
        protocol::{Encodable, StrBytes},
    };

    use super::*;

    /// What a client's consumer sends.
    fn subscription(topics: &[&str], version: i16) -> Bytes {
        let names = topics.iter().map(|t| StrBytes::from_string((*t).to_owned())).collect();
        let mut bytes = BytesMut::from(&version.to_be_bytes()[..]);
        ConsumerProtocolSubscription::default().with_topics(names).encode(&mut bytes, version).unwrap();
        bytes.freeze()
    }

    #[test]
    fn topics_of_every_version_are_read() {
        for version in 0..=3 {
            let found = subscribed_topics(&subscription(&["orders", "payments"], version)).unwrap();
            assert_eq!(found, [Arc::from("orders"), Arc::from("payments")]);
        }
    }

    #[test]
    fn what_is_cut_or_lies_about_lengths_is_no_subscription() {
        let whole = subscription(&["orders"], 0);
        for len in 0..14 {
            assert_eq!(subscribed_topics(&whole[..len]), None, "{len} bytes");
        }
        assert_eq!(subscribed_topics(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(subscribed_topics(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]), None);
        assert_eq!(subscribed_topics(b"not a subscription"), None);
    }
}
