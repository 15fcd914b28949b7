//! Goldens, round trips, and damage at every byte.

use bytes::Bytes;
use futures_lite::future::block_on;
use proptest::prelude::*;
use thalweg_record::{Batch, BatchHead, HEAD_LEN, LeaderEpoch, NodeId, Offset, PartitionId, ShardId, TopicId, Wall};

use super::*;
use crate::{MemoryStore, ObjectStore, PutCondition, data_key};

fn partition(n: u8) -> PartitionId {
    PartitionId { topic: TopicId([n; 16]), index: i32::from(n) }
}

fn batch(base: i64, records: i32, epoch: i32, max_timestamp: i64, body: &[u8]) -> Batch {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_last_offset_delta(records - 1);
    head.set_record_count(records);
    head.set_max_timestamp(max_timestamp);
    head.set_crc(head.compute_crc(body));
    head.stamp(Offset(base), LeaderEpoch(epoch));
    Batch { head, body: Bytes::copy_from_slice(body) }
}

fn properties() -> Properties {
    Properties {
        cluster_id: "cluster".to_owned(),
        node: NodeId(3),
        node_epoch: 9,
        shard: ShardId(1),
        upload_sequence: 77,
        partitions: vec![PartitionProperties {
            partition: partition(1),
            topic_name: "orders".to_owned(),
            settings_version: 5,
            leader_epoch: LeaderEpoch(4),
            log_start: Offset(6),
            epochs: vec![(LeaderEpoch(4), Offset(12))],
            producers: vec![ProducerState {
                producer_id: 1000,
                epoch: 2,
                last_timestamp: Wall(555),
                window: vec![ProducerBatch {
                    first_sequence: 1,
                    last_sequence: 2,
                    base_offset: Offset(10),
                    last_offset: Offset(11),
                }],
            }],
            aborted: vec![AbortedTransaction { producer_id: 1000, first_offset: Offset(8), last_offset: Offset(12) }],
        }],
    }
}

/// Two partitions; the first with a batch larger than a block and a change of epoch.
fn sample() -> EncodedObject {
    let mut object = ObjectEncoder::new(42, 300);
    object.push(partition(1), &batch(10, 2, 3, 500, b"one"));
    object.push(partition(1), &batch(12, 1, 3, 400, b"two"));
    object.push(partition(1), &batch(13, 1, 4, 450, b"three"));
    object.push(partition(1), &batch(14, 5, 4, 900, &[7; 5000]));
    object.push(partition(1), &batch(19, 1, 4, 800, b"four"));
    object.push(partition(2), &batch(0, 1, 0, 100, b"five"));
    object.finish(&properties())
}

fn whole(object: &EncodedObject) -> Vec<u8> {
    let bytes = object.parts.concat();
    assert_eq!(bytes.len() as u64, object.size_bytes);
    bytes
}

fn parse(bytes: &[u8]) -> Result<(Footer, BlockIndex, Properties), FormatError> {
    let footer = Footer::parse(&bytes[bytes.len().saturating_sub(FOOTER_BYTES)..], bytes.len() as u64)?;
    let section = |range: std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
    let index = BlockIndex::parse(&footer, section(footer.index_range()))?;
    let properties = Properties::parse(&footer, section(footer.properties_range()))?;
    Ok((footer, index, properties))
}

#[test]
fn blocks_are_cut_by_size_epoch_and_partition() {
    let object = sample();
    let bytes = whole(&object);
    let (footer, index, read) = parse(&bytes).expect("an object");
    assert_eq!((footer.object, footer.blocks, read), (42, 5, properties()));
    let offsets: Vec<(i64, i64)> = index.entries().iter().map(|e| (e.base.0, e.last.0)).collect();
    assert_eq!(offsets, [(10, 12), (13, 13), (14, 18), (19, 19), (0, 0)]);
    let first = index.entries()[0];
    assert_eq!((first.records, first.max_timestamp, first.max_timestamp_base), (3, Wall(500), Offset(10)));
    for entry in index.entries() {
        let block = Bytes::copy_from_slice(&bytes[entry.position as usize..][..entry.size_bytes as usize]);
        entry.verify(&block).expect("the block's CRC");
        let mut rest = entry.from_offset(&block, entry.last).expect("batches");
        let last = Batch::split_from(&mut rest).expect("a batch");
        assert!(rest.is_empty() && last.head.last_offset() == entry.last && last.verify_crc().is_ok());
    }
    let range = object.ranges[0];
    assert_eq!((range.base, range.last, range.max_timestamp), (Offset(10), Offset(19), Wall(900)));
    assert_eq!(range.size_bytes, 5 * 61 + 5015);
}

#[test]
fn large_bodies_are_not_copied() {
    let body = Bytes::from(vec![1u8; 5000]);
    let mut object = ObjectEncoder::new(1, 1 << 19);
    object.push(partition(1), &Batch { head: batch(0, 1, 0, 0, &body).head, body: body.clone() });
    let parts = object.finish(&Properties::default()).parts;
    assert!(parts.iter().any(|part| part.as_ptr() == body.as_ptr()));
}

#[test]
fn lookups_find_the_block() {
    let (_, index, _) = parse(&whole(&sample())).expect("an object");
    let from = |offset| index.from_offset(partition(1), Offset(offset)).first().map(|e| e.base.0);
    assert_eq!(
        [from(0), from(10), from(12), from(13), from(18), from(19), from(20)].map(|b| b.unwrap_or(-1)),
        [10, 10, 10, 13, 14, 19, -1]
    );
    assert_eq!(index.from_offset(partition(3), Offset(0)), []);
    let at = |from, time| index.find_time(partition(1), Offset(from), Wall(time)).map_or(-1, |e| e.base.0);
    assert_eq!([at(0, 0), at(0, 500), at(0, 501), at(14, 850), at(19, 850), at(0, 901)], [10, 10, 14, 14, -1, -1]);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let good = whole(&sample());
    let blocks_end = parse(&good).expect("an object").0.index_range().start as usize;
    for at in blocks_end..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(parse(&bad).is_err(), "byte {at} of {}", good.len());
    }
    for len in 0..good.len() {
        assert!(parse(&good[..len]).is_err(), "cut to {len}");
    }
    let (_, index, _) = parse(&good).expect("an object");
    let entry = index.entries()[0];
    for at in 0..entry.size_bytes as usize {
        let mut block = good[entry.position as usize..][..entry.size_bytes as usize].to_vec();
        block[at] ^= 0x10;
        assert_eq!(entry.verify(&block), Err(FormatError::Crc("block")), "byte {at}");
    }
}

#[test]
fn batches_in_the_wrong_order_are_a_bug_of_the_caller() {
    let push_second = |p: u8, base: i64| {
        std::panic::catch_unwind(move || {
            let mut object = ObjectEncoder::new(1, 1024);
            object.push(partition(2), &batch(5, 2, 0, 0, b""));
            object.push(partition(p), &batch(base, 1, 0, 0, b""));
        })
    };
    assert!(push_second(2, 7).is_ok() && push_second(3, 0).is_ok());
    assert!(push_second(2, 6).is_err(), "offset 6 is stored already");
    assert!(push_second(1, 0).is_err(), "partition 1 comes before 2");
}

#[test]
fn a_whole_batch_must_be_exactly_one() {
    let one = batch(0, 1, 0, 0, b"records");
    let bytes = Bytes::from([&one.head.0[..], &one.body].concat());
    let mut object = ObjectEncoder::new(1, 1024);
    assert!(object.push_whole(partition(1), bytes.slice(..bytes.len() - 1)).is_err());
    object.push_whole(partition(1), bytes.clone()).expect("one batch");
    assert_eq!(object.finish(&Properties::default()).parts[0], bytes);
}

#[test]
fn what_is_left_out_belongs_to_the_batch_behind_it() {
    let whole_of = |one: &Batch| Bytes::from([&one.head.0[..], &one.body].concat());
    let mut empty = batch(35, 5, 2, 5_000, b"");
    empty.head.set_record_count(0);
    let mut object = ObjectEncoder::new(0, 150);
    for (from, one) in [
        (5, batch(10, 1, 1, 100, b"a")),
        (11, batch(20, 1, 1, 900, b"b")),
        // In the first block there is no room for it.
        (21, batch(21, 1, 1, 200, b"c")),
        (22, batch(30, 1, 2, 300, b"d")),
        (31, empty),
    ] {
        object.push_behind(partition(1), Offset(from), whole_of(&one)).expect("one batch");
    }
    assert!(object.push_behind(partition(1), Offset(50), whole_of(&batch(49, 1, 2, 0, b""))).is_err());
    object.name(7);
    let made = object.finish(&Properties::default());
    let (footer, index, _) = parse(&whole(&made)).expect("an object");
    assert_eq!(footer.object, 7);
    let blocks: Vec<_> = index.entries().iter().map(|e| (e.base.0, e.last.0, e.records, e.max_timestamp.0)).collect();
    assert_eq!(
        blocks,
        [(5, 20, 2, 900), (21, 21, 1, 200), (22, 39, 1, 300)],
        "no hole between, and no time of an empty batch"
    );
    assert_eq!((made.ranges[0].base, made.ranges[0].max_timestamp), (Offset(5), Wall(900)));
    let found = |offset| index.from_offset(partition(1), Offset(offset)).first().map(|e| e.base.0);
    assert_eq!([found(0), found(7), found(15), found(25)], [Some(5), Some(5), Some(5), Some(22)]);
}

#[test]
fn an_object_can_be_inspected() {
    let (store, key) = (MemoryStore::new(), data_key(42, NodeId(3), 9));
    block_on(store.put(&key, sample().parts, PutCondition::IfAbsent)).expect("put");
    let text = block_on(inspect(&store, &key)).expect("an object").to_string();
    for says in ["object 42 (data/", "cluster cluster node 3 epoch 9", "partition orders index 1", "offsets 14..=18"] {
        assert!(text.contains(says), "{says} is missing in:\n{text}");
    }
    store.overwrite(&key, Bytes::from_static(b"short"));
    assert_eq!(block_on(inspect(&store, &key)).err(), Some(InspectError::Format(FormatError::Magic)));
}

/// The bytes of version 1. A change here is a change of the format, and needs a new version.
#[test]
fn golden() {
    let mut object = ObjectEncoder::new(42, 1024);
    object.push(partition(1), &batch(10, 2, 3, 500, b"one"));
    let bytes = whole(&object.finish(&properties()));
    let hex: String = bytes[64..].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(bytes[..64], [&batch(10, 2, 3, 500, b"one").head.0[..], b"one"].concat(), "the batch as it is");
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str = "\
    0101010101010101010101010101010101000000030000000a000000000000000b000000000000000200000000000000f401\
    0000000000000a00000000000000000000000000000040000000977637c20700636c75737465720300000009000000000000\
    0001004d0000000000000001000000010101010101010101010101010101010100000006006f726465727305000000000000\
    0004000000060000000000000001000000040000000c0000000000000001000000e80300000000000002002b020000000000\
    000101000000020000000a000000000000000b0000000000000001000000e80300000000000008000000000000000c000000\
    00000000400000000000000050000000cb3203c69000000000000000ae00000094c422282a00000000000000010000000000\
    0000010000008e006de85448414c5745474f";

fn any_properties() -> impl Strategy<Value = Properties> {
    let batch = (any::<i32>(), any::<i32>(), any::<i64>(), any::<i64>()).prop_map(|(f, l, b, e)| ProducerBatch {
        first_sequence: f,
        last_sequence: l,
        base_offset: Offset(b),
        last_offset: Offset(e),
    });
    let producer =
        (any::<i64>(), any::<i16>(), any::<i64>(), prop::collection::vec(batch, 0..=WINDOW_BATCHES)).prop_map(
            |(producer_id, epoch, t, window)| ProducerState { producer_id, epoch, last_timestamp: Wall(t), window },
        );
    let aborted = (any::<i64>(), any::<i64>(), any::<i64>()).prop_map(|(p, f, l)| AbortedTransaction {
        producer_id: p,
        first_offset: Offset(f),
        last_offset: Offset(l),
    });
    let epochs =
        prop::collection::vec((any::<i32>(), any::<i64>()).prop_map(|(e, o)| (LeaderEpoch(e), Offset(o))), 0..4);
    let one = (
        any::<[u8; 16]>(),
        any::<i32>(),
        "[a-z.]{0,20}",
        any::<u64>(),
        any::<i32>(),
        any::<i64>(),
        epochs,
        prop::collection::vec(producer, 0..4),
        prop::collection::vec(aborted, 0..4),
    )
        .prop_map(|(topic, index, topic_name, settings_version, epoch, start, epochs, producers, aborted)| {
            PartitionProperties {
                partition: PartitionId { topic: TopicId(topic), index },
                topic_name,
                settings_version,
                leader_epoch: LeaderEpoch(epoch),
                log_start: Offset(start),
                epochs,
                producers,
                aborted,
            }
        });
    (any::<i32>(), any::<u64>(), any::<u16>(), any::<u64>(), prop::collection::vec(one, 0..4)).prop_map(
        |(node, node_epoch, shard, upload_sequence, partitions)| Properties {
            cluster_id: "c".to_owned(),
            node: NodeId(node),
            node_epoch,
            shard: ShardId(shard),
            upload_sequence,
            partitions,
        },
    )
}

proptest! {
    #[test]
    fn properties_survive_the_trip(properties in any_properties()) {
        let bytes = whole(&ObjectEncoder::new(1, 1024).finish(&properties));
        prop_assert_eq!(parse(&bytes).expect("an object").2, properties);
    }

    /// With a right CRC over wrong bytes, parsing fails or yields something, but neither panics nor allocates wildly.
    #[test]
    fn damage_behind_a_right_crc_is_survived(
        properties in any_properties(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = properties.encode();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let footer = Footer {
            object: 1,
            blocks: 0,
            index: footer::Section::of(0, &[]),
            properties: footer::Section::of(0, &bytes),
        };
        if let Ok(read) = Properties::parse(&footer, &bytes) {
            prop_assert!(read.partitions.len() <= bytes.len());
        }
    }

    #[test]
    fn what_was_pushed_is_what_the_index_finds(
        sizes in prop::collection::vec((1i32..5, 0usize..6000, 0i64..1000), 1..60),
        block_bytes in 61u32..20_000,
    ) {
        let mut object = ObjectEncoder::new(1, block_bytes);
        let (mut base, mut pushed) = (0i64, Vec::new());
        for (records, body, time) in sizes {
            let one = batch(base, records, 0, time, &vec![records as u8; body]);
            object.push(partition(1), &one);
            base += i64::from(records);
            pushed.push(one);
        }
        let bytes = whole(&object.finish(&Properties::default()));
        let (_, index, _) = parse(&bytes).expect("an object");
        for one in &pushed {
            let entry = index.from_offset(partition(1), one.head.last_offset())[0];
            prop_assert!(entry.size_bytes <= block_bytes || entry.base == one.head.base_offset() && entry.last == one.head.last_offset());
            let block = Bytes::copy_from_slice(&bytes[entry.position as usize..][..entry.size_bytes as usize]);
            prop_assert_eq!(entry.verify(&block), Ok(()));
            let mut rest = entry.from_offset(&block, one.head.base_offset()).expect("batches");
            let found = Batch::split_from(&mut rest).expect("a batch");
            prop_assert_eq!(found.head, one.head);
            prop_assert_eq!(&found.body, &one.body);
        }
    }
}
