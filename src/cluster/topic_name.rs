//! Kafka's rules for topic names.

use std::{collections::BTreeMap, sync::Arc};

use thalweg_record::TopicId;

const MAX_LEN: usize = 249;

/// Whether a name may be a topic's; the error says what is wrong, for the client (17).
pub(super) fn check(name: &str) -> Result<(), String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() {
        Err("Topic name is invalid: the empty string is not allowed".into())
    } else if name == "." || name == ".." {
        Err("Topic name is invalid: '.' or '..' is not allowed".into())
    } else if name.len() > MAX_LEN {
        Err(format!("Topic name is invalid: the length is longer than the max allowed length {MAX_LEN}"))
    } else if !name.bytes().all(legal) {
        let shown = name.escape_default();
        Err(format!(
            "Topic name is invalid: '{shown}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ))
    } else {
        Ok(())
    }
}

/// A topic whose name becomes the same when `.` and `_` are not told apart, as names of metrics do not; Kafka refuses such
/// a pair (17).
pub(super) fn collision<'a>(name: &str, names: &'a BTreeMap<Arc<str>, TopicId>) -> Option<&'a str> {
    if !name.contains(['.', '_']) {
        return None;
    }
    let folded = |byte: u8| if byte == b'.' { b'_' } else { byte };
    let same = |other: &str| other.len() == name.len() && other.bytes().map(folded).eq(name.bytes().map(folded));
    names.keys().map(|other| &**other).find(|other| *other != name && same(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["a", "A-b_c.9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        let names: BTreeMap<Arc<str>, TopicId> =
            [("a.b".into(), TopicId::ZERO), ("plain".into(), TopicId::ZERO)].into();
        assert_eq!(collision("a_b", &names), Some("a.b"));
        assert_eq!(collision("a.b", &names), None, "the same name is another error");
        assert_eq!(collision("a-b", &names), None);
    }
}
