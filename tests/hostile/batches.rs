//! Record batches that lie under a right CRC: counts, times, lengths, and what comes out of their compression.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        FetchRequest, ListOffsetsRequest, ProduceRequest,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use thalweg_record::{BatchHead, HEAD_LEN};
use thalweg_rig::{
    Chance, Client,
    batch::{self, record, sealed, squeezed, varint},
};

use crate::attacked::{Attacked, SEED};

/// What a bomb unfolds to.
const UNFOLDED: usize = 200 << 20;

fn topic(name: &str) -> kafka_protocol::messages::TopicName {
    StrBytes::from_string(name.to_owned()).into()
}

fn produce(client: &mut Client, name: &str, partition: i32, records: Bytes) -> i16 {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let data = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
    client.ask(9, &request).expect("an answer").responses[0].partition_responses[0].error_code
}

/// Reads a partition from `offset` until it gives nothing more; bytes read.
fn drain(client: &mut Client, name: &str, partition: i32) -> usize {
    let (mut offset, mut bytes) = (0, 0);
    loop {
        let from = FetchPartition::default().with_partition(partition).with_fetch_offset(offset);
        let from = from.with_partition_max_bytes(1 << 20);
        let topics = vec![FetchTopic::default().with_topic(topic(name)).with_partitions(vec![from])];
        let request = FetchRequest::default().with_replica_id((-1).into()).with_max_bytes(1 << 20).with_topics(topics);
        let answer = client.ask(11, &request.with_max_wait_ms(100).with_min_bytes(1)).expect("an answer");
        let part = &answer.responses[0].partitions[0];
        assert_eq!(part.error_code, 0, "offset {offset} of {name} {partition}");
        let Some(mut rest) = part.records.clone().filter(|records| !records.is_empty()) else { return bytes };
        while rest.len() >= HEAD_LEN {
            let head = BatchHead::parse(&rest).expect("whole batches");
            assert!(head.last_offset().0 >= offset, "batches come in the order of their offsets");
            offset = head.last_offset().0 + 1;
            bytes += head.size_bytes();
            rest = rest.slice(head.size_bytes().min(rest.len())..);
        }
    }
}

fn look_up(client: &mut Client, name: &str, partition: i32, time: i64) {
    let part = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(time);
    let topics = vec![ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![part])];
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(topics);
    client.ask(7, &request).expect("an answer");
}

fn keyed(count: i64) -> Vec<u8> {
    (0..count).flat_map(|at| record(at, Some(b"key"), Some(b"value"))).collect()
}

/// Heads and bodies of a small batch with single bits flipped, and the CRC put right.
fn flipped(codec: u8, chance: &mut Chance) -> Vec<Bytes> {
    let mut head = batch::head(3);
    head.set_attributes(i16::from(codec));
    let body = squeezed(codec, &keyed(3));
    let of_head = (12 * 8..HEAD_LEN * 8).map(|bit| {
        let mut head = head;
        head.0[bit / 8] ^= 1 << (bit % 8);
        sealed(head, &body)
    });
    let of_body = (0..300).map(|_| {
        let mut body = body.clone();
        (0..=chance.below(3)).for_each(|_| {
            let bit = chance.below(body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
        });
        sealed(head, &body)
    });
    of_head.chain(of_body).collect()
}

/// Batches whose fields claim what cannot be.
fn liars(codec: u8) -> Vec<Bytes> {
    let of = |change: &dyn Fn(&mut BatchHead), records: &[u8]| {
        let mut head = batch::head(3);
        head.set_attributes(i16::from(codec));
        change(&mut head);
        sealed(head, &squeezed(codec, records))
    };
    let count = |n: i32| {
        move |head: &mut BatchHead| {
            head.set_record_count(n);
            head.set_last_offset_delta(n.wrapping_sub(1));
        }
    };
    let mut long_record = Vec::new();
    varint(&mut long_record, i64::from(i32::MAX));
    let mut many_headers = vec![0, 0, 0, 1, 1];
    varint(&mut many_headers, i64::from(i32::MAX));
    let many_headers = {
        let mut out = Vec::new();
        varint(&mut out, many_headers.len() as i64);
        out.extend(many_headers);
        out
    };
    vec![
        of(&count(i32::MAX), &keyed(3)),
        of(&count(2_000_000_000), &keyed(3)),
        of(&count(i32::MIN), &keyed(3)),
        of(&count(2), &keyed(3)),
        of(&|_| (), &long_record),
        of(&|_| (), &many_headers),
        of(&|_| (), &[0xff; 64]),
        of(&|_| (), &[]),
        of(&|head| head.set_max_timestamp(i64::MAX), &keyed(3)),
        of(&|head| head.set_base_timestamp(i64::MAX), &keyed(3)),
        of(
            &|head| {
                head.set_base_timestamp(i64::MIN);
                head.set_max_timestamp(i64::MIN)
            },
            &keyed(3),
        ),
        of(
            &|head| {
                head.set_producer_id(i64::MAX);
                head.set_producer_epoch(i16::MAX);
                head.set_base_sequence(i32::MAX)
            },
            &keyed(3),
        ),
        of(
            &|head| {
                head.set_producer_id(0);
                head.set_producer_epoch(0);
                head.set_base_sequence(i32::MAX - 1)
            },
            &keyed(3),
        ),
    ]
}

#[test]
fn batches_that_lie_are_refused_or_kept_as_they_are() {
    // Objects come quickly, so that what was taken is read back from all tiers.
    let attacked = Attacked::start_with(|setup| setup.set("object.upload.interval.ms", 300));
    let topics = [
        ("plain", vec![]),
        ("compacted", vec![("cleanup.policy", "compact")]),
        ("recent", vec![("message.timestamp.before.max.ms", "3600000")]),
    ];
    for (name, configs) in &topics {
        attacked.create(name, 2, configs);
    }
    let pulse = attacked.pulse();
    let mut client = attacked.broker.connect();
    let mut chance = Chance::new(SEED);
    let (mut taken, mut refused) = (0, 0);
    for (name, _) in &topics {
        for codec in 0..=4 {
            for lie in flipped(codec, &mut chance).into_iter().chain(liars(codec)) {
                match produce(&mut client, name, 0, lie) {
                    0 => taken += 1,
                    code => {
                        assert!([2, 10, 32, 45, 47, 53, 76, 87].contains(&code), "an odd error: {code}");
                        refused += 1;
                    }
                }
            }
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 500 && refused > 500);
    for (name, _) in &topics {
        let bytes = drain(&mut client, name, 0);
        println!("{name}: {bytes} bytes read back");
        for time in [-3, -4, -5, i64::MAX, i64::MIN, 0, batch::now_ms(), batch::now_ms() + 3_000_000] {
            look_up(&mut client, name, 0, time);
        }
    }
    drop(client);
    attacked.check(pulse, "batches that lie");
}

#[test]
fn bombs_do_not_unfold_in_memory() {
    let attacked = Attacked::start();
    attacked.create("plain", 1, &[]);
    attacked.create("compacted", 4, &[("cleanup.policy", "compact")]);
    let pulse = attacked.pulse();
    let mut client = attacked.broker.connect();
    let zeros = vec![0; UNFOLDED];
    for codec in 1..=4 {
        let mut head = batch::head(1);
        head.set_attributes(i16::from(codec));
        let mut body = squeezed(codec, &zeros);
        if body.len() > 1_000_000 {
            println!("codec {codec}: {} bytes are no bomb, cut", body.len());
            body.truncate(1_000_000);
        }
        let bomb = sealed(head, &body);
        println!("codec {codec}: {} bytes unfold to {UNFOLDED}", bomb.len());
        for partition in (0..4).cycle().take(12) {
            let code = produce(&mut client, "compacted", partition, bomb.clone());
            assert!([10, 87].contains(&code), "codec {codec}: {code}");
        }
        assert_eq!(produce(&mut client, "plain", 0, bomb), 0, "where nobody looks, a bomb is a batch like others");
        (0..4).for_each(|_| look_up(&mut client, "plain", 0, batch::now_ms() - 1000));
    }
    // Snappy tells the size in front; ten bytes may claim anything.
    for claim in [64 << 20, (64 << 20) - 1, u64::from(u32::MAX)] {
        let (mut body, mut left) = (Vec::new(), claim);
        while left >= 0x80 {
            body.push(left as u8 | 0x80);
            left >>= 7;
        }
        body.push(left as u8);
        let mut head = batch::head(1);
        head.set_attributes(2);
        (0..20).for_each(|_| assert_eq!(produce(&mut client, "compacted", 0, sealed(head, &body)), 87));
    }
    drop(client);
    attacked.check(pulse, "bombs");
}
