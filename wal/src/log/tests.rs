use std::rc::Rc;

use futures_lite::future::block_on;
use thalweg_record::{BatchHead, HEAD_LEN, LeaderEpoch, Mono, NodeId, Offset, PartitionId, ShardId};

use crate::{Device, Log, LogConfig, Recovered, SliceIdentity, create, device::MemoryDevice, open};

fn identity() -> SliceIdentity {
    SliceIdentity { cluster: [1; 16], node: NodeId(3), shard: ShardId(0), slice: [2; 16] }
}

fn batch(base: i64, body: &[u8]) -> BatchHead {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_crc(head.compute_crc(body));
    head.stamp(Offset(base), LeaderEpoch(1));
    head
}

fn small() -> LogConfig {
    LogConfig { max_group_bytes: 16 << 10, max_in_flight_bytes: 64 << 10, ..LogConfig::default() }
}

fn reopen(device: &MemoryDevice) -> Recovered {
    block_on(open(Rc::new(device.clone()), identity(), small(), 9, false)).expect("opens")
}

fn append(device: &MemoryDevice, log: &mut Log, base: i64, body: &[u8]) {
    let head = batch(base, body);
    let room = log.reserve((HEAD_LEN + body.len()) as u32).expect("room");
    log.push(room, PartitionId::default(), &head, body);
    let write = log.seal(Mono(0)).expect("a group");
    let (r, _) = block_on(device.write(write.at, write.buf));
    log.written(write.id, r).expect("durable");
}

#[test]
fn what_was_written_is_recovered_over_several_laps() {
    let device = MemoryDevice::new(128 << 10);
    block_on(create(Rc::new(device.clone()), identity(), small(), 7)).expect("created");
    let mut log = reopen(&device).log;
    for base in 0..200 {
        append(&device, &mut log, base, &[base as u8; 5000]);
        let mut next = log.trim(log.durable());
        while let Some(write) = next {
            let (r, _) = block_on(device.write(write.at, write.buf));
            next = log.superblock_written(r).expect("durable");
        }
    }
    for base in 200..203 {
        append(&device, &mut log, base, &[base as u8; 5000]);
    }
    let head = log.head();
    drop(log);
    let again = reopen(&device);
    assert_eq!(again.batches.iter().map(|b| b.head.base_offset().0).collect::<Vec<_>>(), [200, 201, 202]);
    assert_eq!(again.log.head(), head);
    for found in &again.batches {
        let bytes =
            block_on(crate::read(Rc::new(device.clone()), again.log.ring(), found.lsn, found.head.size_bytes()))
                .expect("read");
        assert_eq!(bytes[HEAD_LEN..], [found.head.base_offset().0 as u8; 5000]);
    }
}
