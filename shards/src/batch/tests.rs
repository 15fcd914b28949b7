use bytes::Bytes;
use proptest::prelude::*;
use thalweg_record::{BatchHead, HEAD_LEN};

use super::*;

const NOW: Wall = Wall(1_000_000_000);

fn settings() -> PartitionSettings {
    PartitionSettings { max_message_bytes: 1 << 20, retention_ms: None, ..PartitionSettings::KAFKA_DEFAULTS }
}

fn varint(value: i64, out: &mut Vec<u8>) {
    let mut raw = (value << 1 ^ value >> 63) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn nullable(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    varint(bytes.map_or(-1, |b| b.len() as i64), out);
    out.extend(bytes.unwrap_or_default());
}

struct Record {
    delta: i64,
    timestamp: i64,
    key: Option<&'static [u8]>,
}

fn record(delta: i64, timestamp: i64) -> Record {
    Record { delta, timestamp, key: Some(b"key") }
}

fn records(records: &[Record], base: i64) -> Vec<u8> {
    let mut all = Vec::new();
    for record in records {
        let mut one = vec![0];
        varint(record.timestamp - base, &mut one);
        varint(record.delta, &mut one);
        nullable(record.key, &mut one);
        nullable(Some(b"some value"), &mut one);
        varint(2, &mut one);
        for value in [Some(b"1".as_slice()), None] {
            nullable(Some(b"trace"), &mut one);
            nullable(value, &mut one);
        }
        varint(one.len() as i64, &mut all);
        all.extend(one);
    }
    all
}

fn batch(codec: u8, count: i32, base: i64, max: i64, body: Vec<u8>) -> Batch {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_attributes(i16::from(codec));
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_last_offset_delta(count - 1);
    head.set_record_count(count);
    head.set_base_timestamp(base);
    head.set_max_timestamp(max);
    head.set_crc(head.compute_crc(&body));
    Batch { head, body: Bytes::from(body) }
}

fn two(timestamps: [i64; 2]) -> Batch {
    let body = records(&[record(0, timestamps[0]), record(1, timestamps[1])], timestamps[0]);
    batch(0, 2, timestamps[0], timestamps[0].max(timestamps[1]), body)
}

fn compressed(codec: u8, plain: &[u8]) -> Vec<u8> {
    use crate::codec::Compression::{Gzip, Lz4, Snappy, Uncompressed, Zstd};
    let to = [Uncompressed, Gzip(1), Snappy, Lz4(1), Zstd(1)][usize::from(codec)];
    compress(to, &Bytes::copy_from_slice(plain)).to_vec()
}

fn bad(listed: &[(i32, Fault)], accepted: (i64, i64)) -> PartitionError {
    let untimely = listed.iter().any(|(_, fault)| matches!(fault, Fault::Timestamp(_)));
    PartitionError::BadRecords(Box::new(BadRecords {
        listed: listed.to_vec(),
        count: listed.len(),
        untimely,
        accepted,
    }))
}

#[test]
fn a_right_batch_is_left_as_it_is() {
    let mut good = two([NOW.0, NOW.0 + 5]);
    let before = good.head;
    assert_eq!(validate_records(&mut good, &settings(), NOW), Ok(()));
    assert_eq!(good.head, before);
}

#[test]
fn max_timestamp_is_what_the_records_say() {
    let mut lying = two([NOW.0, NOW.0 + 5]);
    lying.head.amend(&lying.body, |head| head.set_max_timestamp(NOW.0 + 99));
    assert_eq!(validate_records(&mut lying, &settings(), NOW), Ok(()));
    assert_eq!(lying.head.max_timestamp(), NOW.0 + 5);
    assert_eq!(lying.verify_crc(), Ok(()));
}

#[test]
fn wrong_counts_and_deltas_are_refused() {
    for count in [1, 3] {
        let mut wrong = two([NOW.0, NOW.0]);
        wrong.head.set_record_count(count);
        let outcome = validate_records(&mut wrong, &settings(), NOW);
        assert!(matches!(outcome, Err(PartitionError::InvalidRecord(_))), "{count} records");
    }
    let body = records(&[record(0, 7), record(2, 7)], 7);
    let outcome = validate_records(&mut batch(0, 2, 7, 7, body), &settings(), NOW);
    assert!(matches!(outcome, Err(PartitionError::InvalidRecord(_))), "a gap in the deltas");
}

#[test]
fn timestamps_outside_the_limits_are_refused_and_none_is_exempt() {
    let mut limits = settings();
    assert_eq!(validate_records(&mut two([NOW.0, NOW.0 + 3_600_000]), &limits, NOW), Ok(()));
    let late = validate_records(&mut two([NOW.0, NOW.0 + 3_600_001]), &limits, NOW);
    let expected = bad(&[(1, Fault::Timestamp(NOW.0 + 3_600_001))], (i64::MIN, NOW.0 + 3_600_000));
    assert_eq!(late, Err(expected));
    limits.timestamp_before_max_ms = Some(1000);
    assert_eq!(validate_records(&mut two([NOW.0 - 1000, NOW.0]), &limits, NOW), Ok(()));
    let early = validate_records(&mut two([NOW.0 - 1001, NOW.0]), &limits, NOW);
    let expected = bad(&[(0, Fault::Timestamp(NOW.0 - 1001))], (NOW.0 - 1000, NOW.0 + 3_600_000));
    assert_eq!(early, Err(expected));
    assert_eq!(validate_records(&mut two([-1, -1]), &limits, NOW), Ok(()));
}

#[test]
fn every_bad_record_is_named_up_to_a_bound() {
    let compacted = PartitionSettings { compact: true, ..settings() };
    let null = |delta| Record { delta, timestamp: NOW.0, key: None };
    let late = Record { delta: 2, timestamp: NOW.0 + 3_600_001, key: None };
    let body = records(&[null(0), record(1, NOW.0 + 3_600_001), late, record(3, NOW.0)], NOW.0);
    let outcome = validate_records(&mut batch(0, 4, NOW.0, NOW.0 + 3_600_001, body), &compacted, NOW);
    let faults = [(0, Fault::NullKey), (1, Fault::Timestamp(NOW.0 + 3_600_001)), (2, Fault::NullKey)];
    assert_eq!(outcome, Err(bad(&faults, (i64::MIN, NOW.0 + 3_600_000))), "a record without a key is told once");
    let many: Vec<Record> = (0..1000).map(null).collect();
    let outcome = validate_records(&mut batch(0, 1000, NOW.0, NOW.0, records(&many, NOW.0)), &compacted, NOW);
    let Err(PartitionError::BadRecords(bad)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((bad.listed.len(), bad.count, bad.untimely), (MOST_LISTED, 1000, false));
}

#[test]
fn the_timestamp_type_is_the_topics() {
    let mut claims = two([NOW.0, NOW.0 + 5]);
    claims.head.amend(&claims.body, |head| head.set_timestamp_type(TimestampType::LogAppendTime));
    let stamping = PartitionSettings { log_append_time: true, ..settings() };
    let refused = validate_records(&mut claims.clone(), &stamping, NOW);
    assert_eq!(refused, Err(PartitionError::InvalidTimestamp), "producers do not stamp");
    assert_eq!(validate_records(&mut claims, &settings(), NOW), Ok(()));
    assert_eq!((claims.head.timestamp_type(), claims.verify_crc()), (TimestampType::CreateTime, Ok(())));
    let mut far = two([NOW.0 - 5, NOW.0 + 99_000_000]);
    assert_eq!(validate_records(&mut far, &stamping, NOW), Ok(()), "limits do not count for what is stamped over");
    let head = &far.head;
    assert_eq!((head.timestamp_type(), head.max_timestamp()), (TimestampType::LogAppendTime, NOW.0));
    assert_eq!((head.base_timestamp(), far.verify_crc()), (NOW.0 - 5, Ok(())));
}

#[test]
fn compressed_batches_are_opened_where_a_rule_needs_it() {
    let body = |key| records(&[Record { delta: 0, timestamp: NOW.0, key }], NOW.0);
    let compacted = PartitionSettings { compact: true, ..settings() };
    for codec in 1..=4 {
        let whole = batch(codec, 1, NOW.0, NOW.0 + 3, compressed(codec, &body(Some(b"k"))));
        assert!(must_open(&whole.head, &compacted, NOW) && !must_open(&whole.head, &settings(), NOW), "codec {codec}");
        let opened = open(whole, &compacted, NOW).expect("a key");
        assert_eq!((opened.head.max_timestamp(), opened.verify_crc()), (NOW.0, Ok(())), "codec {codec}");
        let null = batch(codec, 1, NOW.0, NOW.0, compressed(codec, &body(None)));
        let expected = bad(&[(0, Fault::NullKey)], (i64::MIN, NOW.0 + 3_600_000));
        assert_eq!(open(null, &compacted, NOW).err(), Some(expected), "codec {codec}");
        let junk = batch(codec, 1, NOW.0, NOW.0, b"no codec's bytes, I hope".to_vec());
        assert!(open(junk, &compacted, NOW).is_err(), "codec {codec}");
        let early = PartitionSettings { timestamp_before_max_ms: Some(10), ..settings() };
        let old = batch(codec, 1, NOW.0, NOW.0, compressed(codec, &body(Some(b"k"))));
        assert!(must_open(&old.head, &early, NOW));
        assert!(open(old.clone(), &early, Wall(NOW.0 + 10)).is_ok());
        let expected = bad(&[(0, Fault::Timestamp(NOW.0))], (NOW.0 + 1, NOW.0 + 3_600_011));
        assert_eq!(open(old, &early, Wall(NOW.0 + 11)).err(), Some(expected));
        // Of a batch whose head is out of time, its records say which of them, or that the head lied.
        let liar = batch(codec, 1, NOW.0, NOW.0 + 3_600_001, compressed(codec, &body(Some(b"k"))));
        assert!(must_open(&liar.head, &settings(), NOW));
        assert!(!must_open(&liar.head, &PartitionSettings { log_append_time: true, ..settings() }, NOW));
        assert_eq!(open(liar, &settings(), NOW).expect("in time").head.max_timestamp(), NOW.0);
        let late = batch(codec, 1, NOW.0 + 3_600_001, NOW.0 + 3_600_001, compressed(codec, &body(Some(b"k"))));
        let expected = bad(&[(0, Fault::Timestamp(NOW.0 + 3_600_001))], (i64::MIN, NOW.0 + 3_600_000));
        assert_eq!(open(late, &settings(), NOW).err(), Some(expected));
    }
    let mut unknown = batch(5, 1, NOW.0, NOW.0, Vec::new());
    assert_eq!(validate_records(&mut unknown, &settings(), NOW), Err(PartitionError::UnsupportedCompression));
    assert_eq!(open(unknown, &settings(), NOW).err(), Some(PartitionError::UnsupportedCompression));
}

#[test]
fn recompression_keeps_the_bytes_of_the_records() {
    use crate::codec::Compression;
    let section = records(&[record(0, NOW.0), record(1, NOW.0 + 5)], NOW.0);
    for from in 0..=4 {
        for to in [
            Compression::Uncompressed,
            Compression::Gzip(6),
            Compression::Snappy,
            Compression::Lz4(9),
            Compression::Zstd(3),
        ] {
            let stored = PartitionSettings { compression: Some(to), ..settings() };
            let sent = batch(from, 2, NOW.0, NOW.0 + 5, compressed(from, &section));
            assert_eq!(must_open(&sent.head, &stored, NOW), from != to.codec());
            let mut kept = open(sent.clone(), &stored, NOW).expect("sound");
            assert_eq!(decompress(to.codec(), &kept.body, 1 << 20).as_deref(), Ok(&section[..]), "{from} to {to:?}");
            assert_eq!((kept.head.codec(), kept.verify_crc()), (to.codec(), Ok(())));
            assert_eq!(kept.head.size_bytes(), kept.size_bytes());
            assert_eq!(validate_records(&mut kept, &stored, NOW), Ok(()));
        }
    }
    let tight =
        PartitionSettings { compression: Some(Compression::Uncompressed), max_message_bytes: 120, ..settings() };
    let long = records(&[record(0, NOW.0), record(1, NOW.0), record(2, NOW.0)], NOW.0);
    for sent in [batch(4, 3, NOW.0, NOW.0, compressed(4, &long)), batch(0, 3, NOW.0, NOW.0, long)] {
        assert_eq!(open(sent, &tight, NOW).err(), Some(PartitionError::MessageTooLarge));
    }
    let mut corrupt = batch(1, 2, NOW.0, NOW.0 + 5, compressed(1, &section));
    corrupt.head.set_crc(0);
    let stored = PartitionSettings { compression: Some(Compression::Snappy), ..settings() };
    assert_eq!(open(corrupt, &stored, NOW).err(), Some(PartitionError::CorruptMessage));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(codec in 0u8..=4, count in 1i32..1000, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let compacted = PartitionSettings { compact: true, ..settings() };
        let mut batch = batch(codec, count, 0, 0, body);
        let _refused_or_not = validate_records(&mut batch, &compacted, NOW);
        let _refused_or_not = open(batch, &compacted, NOW);
    }

    #[test]
    fn a_flipped_record_never_panics(at in 0usize..200, bit in 0u8..8) {
        let mut body = records(&[record(0, 5), record(1, 9), record(2, 7)], 5);
        let at = at % body.len();
        body[at] ^= 1 << bit;
        let _refused_or_not = validate_records(&mut batch(0, 3, 5, 9, body), &settings(), NOW);
    }
}
