//! The write-ahead log without its device: pushing batches into a group, sealing it, reporting it written.

use std::{cell::RefCell, io, rc::Rc};

use bytes::Bytes;
use divan::{Bencher, counter::BytesCount};
use futures_lite::future::block_on;
use thalweg_record::{Batch, HEAD_LEN, Mono, NodeId, ShardId};
use thalweg_wal::{
    Device, IoBuf, Log, LogConfig, SliceIdentity, create,
    device::{LocalBoxFuture, MemoryDevice, Region},
    open,
};

use crate::sample::{SHAPES, Shape, partition, stamped};

const IDENTITY: SliceIdentity = SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: ShardId(0), slice: [2; 16] };
const RING_BYTES: u64 = 16 << 20;
/// Batches of a group are pushed until it holds this much.
const GROUP_BYTES: usize = 1 << 20;

/// A device in memory that uses its buffers again, as the real one does.
struct Pooled {
    memory: MemoryDevice,
    spare: RefCell<Vec<Box<dyn Region>>>,
}

impl Pooled {
    fn take_back(&self, buf: IoBuf) {
        self.spare.borrow_mut().push(buf.into_region().0);
    }
}

impl Device for Pooled {
    fn len(&self) -> u64 {
        self.memory.len()
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        let bytes = blocks as usize * 4096;
        let mut spare = self.spare.borrow_mut();
        match spare.iter().position(|region| region.memory().len() == bytes) {
            Some(at) => IoBuf::new(spare.swap_remove(at)),
            None => IoBuf::heap(blocks),
        }
    }

    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        self.memory.write(at, b)
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        self.memory.read(at, len)
    }
}

struct Fixture {
    device: Rc<Pooled>,
    log: Log,
    batch: Batch,
    batches: usize,
}

impl Fixture {
    fn new(shape: Shape, batches: usize) -> Fixture {
        let device = Rc::new(Pooled { memory: MemoryDevice::new(RING_BYTES + 8192), spare: RefCell::default() });
        let config = LogConfig { max_group_bytes: 2 << 20, ..LogConfig::default() };
        let log = block_on(async {
            create(device.clone(), IDENTITY, config, 1).await.expect("created");
            open(device.clone(), IDENTITY, config, 2, false).await.expect("opened").log
        });
        Fixture { device, log, batch: stamped(&shape.batch(), 0), batches }
    }

    /// One group: pushed, sealed, written at once, trimmed.
    fn group(&mut self) {
        let size = (HEAD_LEN + self.batch.body.len()) as u32;
        for n in 0..self.batches {
            let room = self.log.reserve(size).expect("room");
            self.log.push(room, partition(n as i32 % 16), &self.batch.head, &self.batch.body);
        }
        let write = self.log.seal(Mono(0)).expect("a group");
        self.device.take_back(write.buf);
        let durable = self.log.written(write.id, Ok(())).expect("sound");
        let mut superblock = self.log.trim(durable);
        while let Some(write) = superblock {
            self.device.take_back(write.buf);
            superblock = self.log.superblock_written(Ok(())).expect("sound");
        }
    }
}

#[divan::bench(args = SHAPES)]
fn group_of_a_mebibyte(bencher: Bencher<'_, '_>, shape: Shape) {
    let batch_bytes = shape.batch().size_bytes();
    let batches = GROUP_BYTES / batch_bytes;
    let mut fixture = Fixture::new(shape, batches);
    bencher.counter(BytesCount::new(batches * batch_bytes)).bench_local(|| fixture.group());
}

#[divan::bench(args = SHAPES)]
fn group_of_one_batch(bencher: Bencher<'_, '_>, shape: Shape) {
    let mut fixture = Fixture::new(shape, 1);
    bencher.counter(BytesCount::new(fixture.batch.size_bytes())).bench_local(|| fixture.group());
}
