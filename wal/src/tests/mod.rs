//! The log as a whole, over devices in memory: scenarios of each rule, damage at every block, crashes, goldens.

mod crash;
mod damage;
mod goldens;
mod planted;
mod rules;

use std::rc::Rc;

use futures_lite::future::block_on;
use thalweg_record::{BatchHead, HEAD_LEN, LeaderEpoch, Mono, NodeId, Offset, PartitionId, ShardId, TopicId};

use crate::{
    Device, GroupWrite, Log, LogConfig, Lsn, OpenError, Recovered, SliceIdentity, SuperblockWrite, create,
    device::MemoryDevice, open,
};

fn identity() -> SliceIdentity {
    SliceIdentity { cluster: [1; 16], node: NodeId(3), shard: ShardId(4), slice: [2; 16] }
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([5; 16]), index }
}

/// A sound batch of one record per offset `base ..= last`, whose records are `body`.
fn batch(base: i64, last: i64, body: &[u8]) -> BatchHead {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_last_offset_delta((last - base) as i32);
    head.set_crc(head.compute_crc(body));
    head.stamp(Offset(base), LeaderEpoch(1));
    head
}

fn small() -> LogConfig {
    LogConfig { max_group_bytes: 16 << 10, max_in_flight_bytes: 64 << 10, ..LogConfig::default() }
}

/// A fresh slice of `kib` KiB.
fn slice(kib: u64) -> MemoryDevice {
    let device = MemoryDevice::new(kib << 10);
    block_on(create(Rc::new(device.clone()), identity(), small(), 7)).expect("created");
    device
}

fn try_open(device: &MemoryDevice, config: LogConfig, accept_loss: bool) -> Result<Recovered, OpenError> {
    block_on(open(Rc::new(device.clone()), identity(), config, 9, accept_loss))
}

fn reopen(device: &MemoryDevice) -> Recovered {
    try_open(device, small(), false).expect("opens")
}

/// Base offsets of what was recovered, in log order.
fn offsets(recovered: &Recovered) -> Vec<i64> {
    recovered.batches.iter().map(|found| found.head.base_offset().0).collect()
}

fn stage(log: &mut Log, base: i64, body: &[u8]) -> Lsn {
    let room = log.reserve((HEAD_LEN + body.len()) as u32).expect("room");
    log.push(room, partition(0), &batch(base, base, body), body)
}

fn sealed(log: &mut Log, base: i64, body: &[u8]) -> GroupWrite {
    stage(log, base, body);
    log.seal(Mono(0)).expect("a group")
}

/// Carries a group to the device without telling the log.
fn carry(device: &MemoryDevice, write: GroupWrite) -> crate::GroupId {
    let (r, _) = block_on(device.write(write.at, write.buf));
    r.expect("written");
    write.id
}

fn carry_superblocks(device: &MemoryDevice, log: &mut Log, mut next: Option<SuperblockWrite>) -> usize {
    let mut written = 0;
    while let Some(write) = next {
        let (r, _) = block_on(device.write(write.at, write.buf));
        next = log.superblock_written(r).expect("not poisoned");
        written += 1;
    }
    written
}

/// Appends a group of one batch and makes it durable.
fn append(device: &MemoryDevice, log: &mut Log, base: i64, body: &[u8]) -> Lsn {
    let write = sealed(log, base, body);
    let start = write.start;
    let id = carry(device, write);
    log.written(id, Ok(())).expect("not poisoned");
    start
}
