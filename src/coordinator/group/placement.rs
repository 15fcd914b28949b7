//! Which partition of `__consumer_offsets` holds a group, exactly as in Apache Kafka, so that its tools find groups.

use std::collections::BTreeMap;

/// The internal topic that holds groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The settings of that topic.
pub fn offsets_topic_configs() -> BTreeMap<String, String> {
    BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())])
}

/// The partition that holds `group`, of `partitions` (>= 1): the absolute value of Java's `String.hashCode`, modulo the
/// count. Kafka takes the one value without an absolute one for 0; masking the sign away would place half of all groups
/// elsewhere.
pub fn partition_for(group: &str, partitions: i32) -> i32 {
    java_hash(group).checked_abs().unwrap_or(0) % partitions.max(1)
}

/// Java's `String.hashCode`: over UTF-16 code units, wrapping.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_javas() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("hello"), 99_162_322);
        // Documented collision, and the string whose hash is Integer.MIN_VALUE.
        assert_eq!(java_hash("Aa"), java_hash("BB"));
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        // Outside the basic plane: two code units, D83D DE00.
        assert_eq!(java_hash("\u{1F600}"), 0xD83D_i32 * 31 + 0xDE00);
    }

    #[test]
    fn placement_is_positive_and_bounded() {
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("hello", 50), 22);
        // A negative hash, -1906497762: the absolute value, as in Kafka since 0.8.2, not the masked sign (36).
        assert_eq!(partition_for("my-group", 50), 12);
        for group in ["a", "console-consumer-12345", "\u{00e4}\u{1F600}"] {
            assert!((0..50).contains(&partition_for(group, 50)));
        }
    }
}
