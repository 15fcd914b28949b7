use thalweg_objectstore::ObjectKey;
use thalweg_record::{LeaderEpoch, TopicId};

use super::*;
use crate::{meta::ObjectId, msg::Millionths};

const NOW: Wall = Wall(100_000);

fn part(n: i64, size_bytes: u64, time: i64) -> CommittedObject {
    CommittedObject {
        object: ObjectId(n as u64),
        key: ObjectKey::new(format!("k{n}")).expect("a key"),
        object_bytes: size_bytes,
        base: Offset(n * 10),
        last: Offset(n * 10 + 9),
        size_bytes,
        max_timestamp: Wall(time),
        epoch: LeaderEpoch(1),
        level: 0,
    }
}

fn settings(change: impl FnOnce(&mut CleaningSettings)) -> PartitionSettings {
    let mut settings = PartitionSettings { compact: true, ..PartitionSettings::KAFKA_DEFAULTS };
    settings.cleaning.segment_ms = 1;
    change(&mut settings.cleaning);
    settings
}

fn at(index: i32, log_start: i64, cleaned: i64) -> Stand {
    let partition = PartitionId { topic: TopicId([1; 16]), index };
    Stand { partition, log_start: Offset(log_start), cleaned: Offset(cleaned), stable: Offset(1 << 40) }
}

/// From where and to where, and clean and dirty bytes.
fn found(stand: &Stand, settings: &PartitionSettings, parts: &[CommittedObject]) -> Option<(i64, i64, u64, u64)> {
    dirt(stand, settings, parts.iter(), NOW).map(|d| (d.from.0, d.end.0, d.clean_bytes, d.dirty_bytes))
}

#[test]
fn what_no_round_has_seen_is_dirty() {
    let parts = [part(0, 100, 1), part(1, 50, 1), part(2, 30, 1)];
    let plain = settings(|_| {});
    assert_eq!(found(&at(0, 0, 0), &plain, &parts), Some((0, 30, 0, 180)));
    assert_eq!(found(&at(0, 0, 10), &plain, &parts), Some((10, 30, 100, 80)));
    assert_eq!(found(&at(0, 0, 15), &plain, &parts), Some((15, 30, 100, 80)), "a map was full in the middle of a part");
    assert_eq!(found(&at(0, 0, 30), &plain, &parts), None);
    assert_eq!(found(&at(0, 25, 10), &plain, &parts[2..]), Some((25, 30, 0, 30)), "records were deleted meanwhile");
    let kept = PartitionSettings { compact: false, ..plain };
    assert_eq!(found(&at(0, 0, 0), &kept, &parts), None);
    let unstable = Stand { stable: Offset(19), ..at(0, 0, 0) };
    assert_eq!(found(&unstable, &settings(|_| {}), &parts), Some((0, 10, 0, 100)));
}

#[test]
fn young_records_and_all_behind_them_stay() {
    let parts = [part(0, 100, NOW.0 - 500), part(1, 50, NOW.0 - 99), part(2, 30, NOW.0 - 500)];
    let lag = |ms| settings(|cleaning| cleaning.min_lag_ms = ms);
    assert_eq!(found(&at(0, 0, 0), &lag(100), &parts), Some((0, 10, 0, 100)));
    assert_eq!(found(&at(0, 0, 0), &lag(99), &parts), Some((0, 30, 0, 180)), "as old as asked for");
    assert_eq!(found(&at(0, 0, 0), &lag(600), &parts), None);
    assert_eq!(found(&at(0, 0, 0), &lag(u64::MAX), &parts), None);
}

fn first(dirt: Vec<Dirt>) -> Option<Dirt> {
    due(dirt).first().copied()
}

#[test]
fn a_round_waits_until_it_is_worth_its_requests() {
    let patient = settings(|cleaning| cleaning.segment_ms = 604_800_000);
    let is_due = |parts: &[CommittedObject], settings: &PartitionSettings| {
        first(dirt(&at(0, 0, 0), settings, parts.iter(), Wall(1_000_000)).into_iter().collect()).is_some()
    };
    let young = |n| part(n, 100, 999_000);
    assert!(!is_due(&[young(0), young(1)], &patient), "little, and young");
    assert!(is_due(&(0..10).map(young).collect::<Vec<_>>(), &patient), "ten uploads");
    assert!(is_due(&[part(0, 16 << 20, 999_000)], &patient), "16 MiB");
    assert!(is_due(&[part(0, 100, 400_000), young(1)], &patient), "ten minutes old");
    assert!(is_due(&[young(0)], &settings(|cleaning| cleaning.segment_ms = 1000)), "the topic says how long");
    let overdue = settings(|cleaning| (cleaning.segment_ms, cleaning.max_lag_ms) = (604_800_000, Some(500)));
    assert!(is_due(&[young(0)], &overdue));
}

#[test]
fn the_dirtiest_that_is_due_comes_first() {
    let parts = [part(0, 100, 1), part(1, 50, 1), part(2, 60, 1)];
    let ratio = |millionths| settings(|cleaning| cleaning.least_ratio = Millionths(millionths));
    let of = |index, cleaned, settings: &PartitionSettings| {
        dirt(&at(index, 0, cleaned), settings, parts.iter(), NOW).expect("dirty")
    };
    let (half, all) = (of(0, 10, &ratio(500_000)), of(1, 0, &ratio(500_000)));
    assert_eq!(first(vec![half, all]).map(|d| d.partition.index), Some(1));
    assert_eq!(first(vec![half]).map(|d| d.partition.index), Some(0), "110 of 210");
    assert_eq!(first(vec![of(0, 20, &ratio(500_000))]), None, "60 of 210");
    assert_eq!(first(vec![of(0, 20, &ratio(285_714)), of(2, 20, &ratio(285_714))]).map(|d| d.partition.index), Some(0));
    assert_eq!(first(vec![of(0, 0, &ratio(1_000_000))]), None, "more than all cannot be dirty");
    let overdue = settings(|cleaning| {
        cleaning.least_ratio = Millionths(1_000_000);
        cleaning.max_lag_ms = Some(50_000);
    });
    assert!(first(vec![of(0, 20, &overdue)]).is_some());
    let soon = settings(|cleaning| {
        cleaning.least_ratio = Millionths(1_000_000);
        cleaning.max_lag_ms = Some(NOW.0.unsigned_abs() - 1);
    });
    assert_eq!(first(vec![of(0, 20, &soon)]), None);
}

#[test]
fn parts_are_written_together_up_to_the_size_of_an_object() {
    let parts: Vec<Rc<CommittedObject>> =
        [40, 40, 30, 500, 10, 90].iter().zip(0..).map(|(size, n)| Rc::new(part(n, *size, 1))).collect();
    let sizes =
        |parts: &[Rc<CommittedObject>], limit| groups(parts, limit).iter().map(|g| bytes_of(g)).collect::<Vec<_>>();
    assert_eq!(sizes(&parts, 100), [80, 30, 500, 100]);
    assert_eq!(sizes(&parts, 1000), [710]);
    assert_eq!(sizes(&[], 1000), Vec::<u64>::new());
    let many: Vec<Rc<CommittedObject>> = (0..150).map(|n| Rc::new(part(n, 1, 1))).collect();
    assert_eq!(sizes(&many, 1000), [60, 60, 30], "a commit names each of them");
}
