use std::collections::BTreeMap;

use bytes::BytesMut;
use proptest::prelude::*;
use thalweg_record::LeaderEpoch;

use super::*;

const NOW: Wall = Wall(1_000_000);
const RETENTION_MS: i64 = 500;

/// A record as a client sees it: offset, timestamp, key, value and headers.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    offset: i64,
    time: i64,
    content: Vec<u8>,
}

/// Key and value of a record to be, and its timestamp.
type Sent<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, i64);

fn field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// Two headers of one name: what a decoder with a map would lose.
fn content(key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, key);
    field(&mut out, value);
    put_varint(&mut out, 2);
    for value in [Some(&b"1"[..]), None] {
        field(&mut out, Some(b"h"));
        field(&mut out, value);
    }
    out
}

fn of_producer(base: i64, producer: i64, codec: Compression, records: &[Sent<'_>]) -> Batch {
    let first = records.first().map_or(-1, |record| record.2);
    let mut section = Vec::new();
    for (delta, (key, value, time)) in records.iter().enumerate() {
        let mut record = vec![0];
        put_varint(&mut record, time - first);
        put_varint(&mut record, delta as i64);
        record.extend(content(*key, *value));
        put_varint(&mut section, record.len() as i64);
        section.extend(record);
    }
    let body = compress(codec, &Bytes::from(section));
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - LENGTH_PREFIX + body.len()) as i32);
    head.set_codec(codec.codec());
    head.set_last_offset_delta(records.len() as i32 - 1);
    head.set_record_count(records.len() as i32);
    head.set_base_timestamp(first);
    head.set_max_timestamp(records.iter().map(|record| record.2).max().unwrap_or(-1));
    head.set_producer_id(producer);
    head.set_base_sequence(7);
    head.set_crc(head.compute_crc(&body));
    head.stamp(Offset(base), LeaderEpoch(3));
    Batch { head, body }
}

fn batch(base: i64, records: &[Sent<'_>]) -> Batch {
    of_producer(base, -1, Compression::Uncompressed, records)
}

fn seen(batch: &Batch) -> Vec<Seen> {
    batch.verify_crc().expect("right");
    let section = unfold(batch).expect("sound");
    let records = RecordWalk::new(&section).map(|record| {
        let record = record.expect("sound");
        let offset = batch.head.base_offset().0 + record.offset_delta;
        Seen { offset, time: time_of(&batch.head, &record), content: record.content.to_vec() }
    });
    let records: Vec<Seen> = records.collect();
    assert_eq!(batch.head.record_count() as usize, records.len());
    records
}

fn rules(keys: KeyMap) -> Rules {
    Rules { keys, now: NOW, delete_retention_ms: RETENTION_MS, producers: BTreeMap::new() }
}

fn mapped(batches: &[Batch]) -> KeyMap {
    let mut keys = KeyMap::new(1 << 20, 0.9, Offset(0));
    batches.iter().for_each(|batch| assert!(index(&mut keys, batch).expect("sound")));
    keys
}

fn rest(outcome: Outcome) -> Batch {
    match outcome {
        Outcome::Rest(mut bytes) => {
            let batch = Batch::split_from(&mut bytes).expect("a batch");
            assert!(bytes.is_empty());
            batch
        }
        other => panic!("{other:?}"),
    }
}

/// All that is the same whatever stays.
fn identity(head: &BatchHead) -> (Offset, Offset, LeaderEpoch, i64, i16, i32) {
    let producer = (head.producer_id(), head.producer_epoch(), head.base_sequence());
    (head.base_offset(), head.last_offset(), head.leader_epoch(), producer.0, producer.1, producer.2)
}

#[test]
fn of_each_key_the_newest_stays() {
    let batches = [
        batch(0, &[(Some(b"a"), Some(b"1"), 10), (Some(b"b"), Some(b"1"), 40), (Some(b"c"), Some(b"1"), 20)]),
        batch(3, &[(Some(b"b"), Some(b"2"), 5)]),
        batch(4, &[(Some(b"c"), Some(b"2"), 6), (Some(b"c"), Some(b"3"), 7)]),
    ];
    let rules = rules(mapped(&batches));
    let first = rest(rules.filter(&batches[0], false).expect("sound"));
    assert_eq!(identity(&first.head), identity(&batches[0].head));
    assert_eq!(seen(&first), seen(&batches[0])[..1]);
    assert_eq!((first.head.base_timestamp(), first.head.max_timestamp()), (10, 10), "of what is left");
    assert_eq!(rules.filter(&batches[1], false), Ok(Outcome::Whole));
    let last = rest(rules.filter(&batches[2], false).expect("sound"));
    assert_eq!(seen(&last), seen(&batches[2])[1..]);
    assert_eq!((last.head.base_offset(), last.head.last_offset()), (Offset(4), Offset(5)));
}

#[test]
fn a_tombstone_stays_until_its_horizon() {
    let value = batch(0, &[(Some(b"k"), Some(b"v"), 10)]);
    let tombstone = batch(1, &[(Some(b"k"), None, 20), (Some(b"l"), Some(b"v"), 30)]);
    let mut rules = rules(mapped(&[value.clone(), tombstone.clone()]));
    assert_eq!(rules.filter(&value, false), Ok(Outcome::Gone));
    let once = rest(rules.filter(&tombstone, false).expect("sound"));
    assert_eq!(once.head.delete_horizon(), Some(NOW.0 + RETENTION_MS));
    assert_eq!((seen(&once), once.head.max_timestamp()), (seen(&tombstone), 30), "the records are as they were");
    rules.now = Wall(NOW.0 + RETENTION_MS - 1);
    assert_eq!(rules.filter(&once, false), Ok(Outcome::Whole), "the horizon is set once");
    rules.now = Wall(NOW.0 + RETENTION_MS);
    let twice = rest(rules.filter(&once, false).expect("sound"));
    assert_eq!(seen(&twice), seen(&tombstone)[1..]);
    assert_eq!(twice.head.delete_horizon(), Some(NOW.0 + RETENTION_MS), "as in Kafka the batch keeps it");
    assert_eq!(rules.filter(&twice, false), Ok(Outcome::Whole));
}

#[test]
fn what_lies_behind_the_map_stays() {
    let records: Vec<Sent<'_>> = vec![(Some(b"a"), Some(b"1"), 1); 4];
    let one = batch(0, &records);
    let other = batch(4, &[(None, Some(b"x"), 1), (Some(b"b"), None, 1)]);
    let mut keys = KeyMap::new(1 << 20, 0.9, Offset(0));
    assert!(keys.put(b"a", Offset(1)));
    let rules = rules(keys);
    assert_eq!(seen(&rest(rules.filter(&one, false).expect("sound"))), seen(&one)[1..]);
    // A record without a key too. No tombstone is given a horizon while nobody has looked for what is older of its key.
    assert_eq!(rules.filter(&other, false), Ok(Outcome::Whole));
}

#[test]
fn no_key_is_taken_from_a_batch_whose_checksum_is_wrong() {
    let Batch { head, body } = batch(0, &[(Some(b"key"), Some(b"1"), 1)]);
    let mut damaged = body.to_vec();
    let key = body.windows(3).position(|bytes| bytes == b"key").expect("it is not compressed");
    damaged[key] ^= 1;
    let mut keys = KeyMap::new(1 << 20, 0.9, Offset(0));
    assert!(index(&mut keys, &Batch { head, body: damaged.into() }).is_err());
    assert_eq!((keys.len(), keys.end()), (0, Offset(0)));
}

#[test]
fn records_without_a_key_go() {
    let one = batch(0, &[(None, Some(b"x"), 1), (Some(b"k"), Some(b"y"), 2)]);
    let rules = rules(mapped(std::slice::from_ref(&one)));
    assert_eq!(seen(&rest(rules.filter(&one, false).expect("sound"))), seen(&one)[1..]);
}

#[test]
fn an_empty_batch_tells_the_last_sequence_of_its_producer() {
    let old = of_producer(0, 9, Compression::Zstd(3), &[(Some(b"k"), Some(b"1"), 1), (Some(b"k"), Some(b"2"), 2)]);
    let new = of_producer(2, 9, Compression::Zstd(3), &[(Some(b"k"), Some(b"3"), 3)]);
    let mut rules = rules(mapped(&[old.clone(), new]));
    assert_eq!(rules.filter(&old, false), Ok(Outcome::Gone), "a later batch tells");
    rules.producers.insert(9, Offset(1));
    let empty = rest(rules.filter(&old, false).expect("sound"));
    assert_eq!(identity(&empty.head), identity(&old.head));
    assert_eq!((empty.head.codec(), empty.head.record_count(), empty.body.len()), (0, 0, 0));
    assert_eq!((empty.head.base_timestamp(), empty.head.max_timestamp()), (-1, 2), "as Kafka writes it");
    assert_eq!(rules.filter(&empty, false), Ok(Outcome::Whole));
    rules.producers.clear();
    assert_eq!(rules.filter(&empty, false), Ok(Outcome::Gone));
    assert_eq!(rules.filter(&empty, true), Ok(Outcome::Whole));
}

#[test]
fn transactions_keep_their_markers_and_replace_nothing() {
    let plain = batch(0, &[(Some(b"k"), Some(b"1"), 1)]);
    let mut open = of_producer(1, 9, Compression::Uncompressed, &[(Some(b"k"), Some(b"2"), 2), (Some(b"l"), None, 2)]);
    open.head.amend(&open.body, |head| head.set_attributes(head.attributes() | 0x10));
    let mut marker = of_producer(3, 9, Compression::Uncompressed, &[(Some(b"\0\0\0\0"), Some(b"x"), 3)]);
    marker.head.amend(&marker.body, |head| head.set_attributes(head.attributes() | 0x30));
    let batches = [plain.clone(), open.clone(), marker.clone()];
    let rules_of = |batches: &[Batch]| rules(mapped(batches));
    for one in &batches {
        assert_eq!(rules_of(&batches).filter(one, false), Ok(Outcome::Whole));
    }
    let later = batch(4, &[(Some(b"k"), Some(b"3"), 4)]);
    let all = rules_of(&[plain.clone(), open.clone(), marker.clone(), later]);
    assert_eq!(all.filter(&plain, false), Ok(Outcome::Gone));
    assert_eq!(seen(&rest(all.filter(&open, false).expect("sound"))), seen(&open)[1..]);
    assert_eq!(all.filter(&marker, false), Ok(Outcome::Whole));
}

#[test]
fn the_brokers_stamp_stays() {
    let mut one = batch(0, &[(Some(b"k"), Some(b"1"), 1), (Some(b"l"), None, 2)]);
    one.head.amend(&one.body, |head| {
        head.set_timestamp_type(TimestampType::LogAppendTime);
        head.set_max_timestamp(77);
    });
    let mut keys = mapped(std::slice::from_ref(&one));
    assert!(keys.put(b"k", Offset(9)));
    let left = rest(rules(keys).filter(&one, false).expect("sound"));
    assert_eq!((left.head.timestamp_type(), left.head.max_timestamp()), (TimestampType::LogAppendTime, 77));
    assert_eq!(seen(&left), seen(&one)[1..]);
}

#[test]
fn damage_is_told_and_never_panics() {
    for codec in [
        Compression::Uncompressed,
        Compression::Gzip(-1),
        Compression::Snappy,
        Compression::Lz4(9),
        Compression::Zstd(3),
    ] {
        let good = of_producer(0, -1, codec, &[(Some(b"k"), Some(b"value"), 1), (Some(b"l"), Some(b"value"), 2)]);
        let rules = rules(mapped(std::slice::from_ref(&good)));
        for at in 21..HEAD_LEN + good.body.len() {
            for bit in 0..8 {
                let mut bytes = BytesMut::from(&[&good.head.0[..], &good.body].concat()[..]);
                bytes[at] ^= 1 << bit;
                let mut bad = Batch::split_from(&mut bytes.freeze()).expect("framed");
                assert!(rules.filter(&bad, false).is_err(), "the CRC tells");
                // And where it does not.
                bad.head.set_crc(bad.head.compute_crc(&bad.body));
                let mut keys = KeyMap::new(1 << 10, 0.9, Offset(0));
                let _ = (rules.filter(&bad, false), index(&mut keys, &bad));
            }
        }
    }
}

fn any_codec() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::Uncompressed),
        Just(Compression::Gzip(-1)),
        Just(Compression::Snappy),
        Just(Compression::Lz4(9)),
        Just(Compression::Zstd(3)),
    ]
}

type AnyRecord = (Option<u8>, Option<Vec<u8>>, i64);

fn any_batches() -> impl Strategy<Value = Vec<(Compression, i64, Vec<AnyRecord>)>> {
    let record = (
        prop::option::weighted(0.95, 0..12u8),
        prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40)),
        -1..50i64,
    );
    prop::collection::vec((any_codec(), -1..3i64, prop::collection::vec(record, 1..6)), 1..40)
}

proptest! {
    /// A log of several rounds, with maps too small for all keys, beside a model that knows the last offset of each key.
    #[test]
    fn rounds_keep_what_a_model_keeps(batches in any_batches(), most in 1..20u64, rounds in 1..12i64) {
        let (mut log, mut next) = (Vec::new(), 0);
        for (codec, producer, records) in &batches {
            let keys: Vec<Option<[u8; 1]>> = records.iter().map(|record| record.0.map(|key| [key])).collect();
            let sent: Vec<Sent<'_>> = records.iter().zip(&keys).map(|((_, value, time), key)| {
                (key.as_ref().map(|key| &key[..]), value.as_deref(), *time)
            }).collect();
            log.push(of_producer(next, *producer, *codec, &sent));
            next += records.len() as i64;
        }
        let all: Vec<Seen> = log.iter().flat_map(seen).collect();
        let key_of = |record: &Seen| {
            let mut section = vec![0];
            put_varint(&mut section, 0);
            put_varint(&mut section, 0);
            section.extend_from_slice(&record.content);
            let mut whole = Vec::new();
            put_varint(&mut whole, section.len() as i64);
            whole.extend(section);
            let view = RecordWalk::new(&whole).next().expect("one").expect("sound");
            (view.key.map(<[u8]>::to_vec), view.null_value)
        };
        let newest: BTreeMap<Vec<u8>, i64> = all.iter().filter_map(|r| Some((key_of(r).0?, r.offset))).collect();
        let mut dirty = Offset(0);
        for round in 0..rounds {
            let mut keys = KeyMap::new((most + 1) * super::super::keys::ENTRY_BYTES, 1.0, dirty);
            for batch in &log {
                if !index(&mut keys, batch).expect("sound") {
                    break;
                }
            }
            prop_assert!(keys.end() > dirty || dirty == Offset(next));
            dirty = keys.end();
            let now = Wall(NOW.0 + round * 200);
            let rules = Rules { keys, now, delete_retention_ms: RETENTION_MS, producers: BTreeMap::new() };
            log = log.iter().filter_map(|batch| match rules.filter(batch, false).expect("sound") {
                Outcome::Whole => Some(batch.clone()),
                Outcome::Rest(mut bytes) => Some(Batch::split_from(&mut bytes).expect("a batch")),
                Outcome::Gone => None,
            }).collect();
        }
        let kept: Vec<Seen> = log.iter().flat_map(seen).collect();
        prop_assert!(kept.iter().all(|record| all.contains(record)), "what is left is as it was sent");
        prop_assert!(kept.is_sorted_by_key(|record| record.offset));
        for record in &all {
            let there = kept.contains(record);
            let (key, null_value) = key_of(record);
            let Some(key) = key else {
                prop_assert!(!there || record.offset >= dirty.0);
                continue;
            };
            if newest[&key] == record.offset {
                // Three rounds lie 600 ms apart: a tombstone may go in the fourth.
                prop_assert!(there || (null_value && rounds > 3), "{record:?} is the newest of its key");
            } else if newest[&key] < dirty.0 {
                prop_assert!(!there, "{record:?} was replaced");
            }
        }
    }
}
