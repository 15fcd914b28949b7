//! How far retention moves a partition's log start.
//!
//! Pure. Whole objects expire, and all that a manifest lists at once: by time when their newest record is older than `retention.ms`, by size while what remains
//! without the oldest still exceeds `retention.bytes`. Records that no object holds yet do not expire.

use thalweg_record::{Offset, Wall};

use crate::{msg::PartitionSettings, partition::Extent};

/// How far a log start moves, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expired {
    /// So far by `retention.ms`.
    pub by_time: Option<Offset>,
    /// From there on by `retention.bytes`, or by time behind what went by size.
    pub start: Offset,
}

/// The new log start, when it moves.
pub(super) fn expired(
    settings: &PartitionSettings,
    extents: impl Iterator<Item = Extent>,
    size_bytes: u64,
    now: Wall,
) -> Option<Expired> {
    if !settings.delete {
        return None;
    }
    let oldest_kept = settings.retention_ms.and_then(|ms| now.0.checked_sub(i64::try_from(ms).ok()?)).map(Wall);
    let mut left = size_bytes;
    let (mut by_time, mut start, mut all_too_old) = (None, None, true);
    for extent in extents {
        let too_old = oldest_kept.is_some_and(|oldest| extent.max_timestamp < oldest);
        let too_much = settings.retention_bytes.is_some_and(|limit| left.saturating_sub(extent.size_bytes) >= limit);
        if !too_old && !too_much {
            break;
        }
        left = left.saturating_sub(extent.size_bytes);
        start = Some(extent.last.next());
        all_too_old &= too_old;
        if all_too_old {
            by_time = start;
        }
    }
    start.map(|start| Expired { by_time, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> PartitionSettings {
        PartitionSettings {
            max_message_bytes: 1,
            retention_ms,
            retention_bytes,
            timestamp_after_max_ms: None,
            ..PartitionSettings::KAFKA_DEFAULTS
        }
    }

    fn extents() -> Vec<Extent> {
        let extent = |n: i64, time| Extent { last: Offset(n * 10 + 9), size_bytes: 100, max_timestamp: Wall(time) };
        vec![extent(0, 1_000), extent(1, 5_000), extent(2, 2_000)]
    }

    fn start(s: &PartitionSettings, now: i64) -> Option<i64> {
        expired(s, extents().into_iter(), 350, Wall(now)).map(|expired| expired.start.0)
    }

    #[test]
    fn time_stops_at_the_first_object_that_is_young_enough() {
        let s = settings(Some(1_000), None);
        assert_eq!(start(&s, 2_000), None, "exactly at the limit is kept");
        assert_eq!(start(&s, 2_001), Some(10));
        assert_eq!(start(&s, 4_000), Some(10), "an older object behind a young one waits");
        assert_eq!(start(&s, 6_001), Some(30));
        assert_eq!(start(&settings(None, None), i64::MAX), None);
    }

    #[test]
    fn size_keeps_at_least_the_limit() {
        assert_eq!(start(&settings(None, Some(350)), 0), None);
        assert_eq!(start(&settings(None, Some(250)), 0), Some(10));
        assert_eq!(start(&settings(None, Some(249)), 0), Some(10));
        assert_eq!(start(&settings(None, Some(0)), 0), Some(30), "the ring's 50 bytes stay");
    }

    #[test]
    fn what_is_too_old_goes_by_time_though_it_is_too_much_as_well() {
        let told = |ms, bytes, now| {
            let told = expired(&settings(ms, bytes), extents().into_iter(), 350, Wall(now)).expect("something goes");
            (told.by_time.map(|to| to.0), told.start.0)
        };
        assert_eq!(told(Some(1_000), None, 6_001), (Some(30), 30));
        assert_eq!(told(None, Some(150), 6_001), (None, 20));
        assert_eq!(
            told(Some(1_000), Some(150), 4_000),
            (Some(10), 30),
            "the last one is too old, behind one that is too much"
        );
        assert_eq!(told(Some(1_000), Some(250), 6_001), (Some(30), 30));
    }

    #[test]
    fn a_compacted_topic_keeps_its_records() {
        let s = PartitionSettings { delete: false, ..settings(Some(1), Some(1)) };
        assert_eq!(start(&s, i64::MAX), None);
    }
}
