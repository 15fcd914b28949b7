//! The device port and the log, on a shard's executor, as the broker uses them.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    rc::Rc,
    sync::mpsc::channel,
    time::Duration,
};

use hdrhistogram::Histogram;
use thalweg_record::{BatchHead, HEAD_LEN, LeaderEpoch, Mono, NodeId, Offset, PartitionId, ShardId};
use thalweg_shards::runtime::{Queue, Runtime, Watchdog, start_executor};
use thalweg_wal::{
    Device, GroupId, IoBuf, Log, LogConfig, SliceIdentity, SuperblockWrite, create,
    device::{GlommioDevice, SliceOptions, WalSync},
    format::{BLOCK, ENTRY_LEN, GROUP_HEADER_LEN, SUPERBLOCKS},
    open,
};

use super::{Pattern, Written};
use crate::{client::histogram, figures::Latency};

const IDENTITY: SliceIdentity = SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: ShardId(0), slice: [2; 16] };
/// The pieces in which the file is written for the first time.
const LAY_OUT_BYTES: u64 = 1 << 20;

type Failed = String;

/// Makes the file and writes all of it once.
pub(super) fn lay_out(path: &Path, bytes: u64) -> Result<(), Failed> {
    let options = SliceOptions::default();
    GlommioDevice::create_file(path, bytes, options).map_err(|e| e.to_string())?;
    on_executor(path.to_owned(), WalSync::Dsync, move |_, device| async move {
        for at in (0..bytes / LAY_OUT_BYTES).map(|n| n * LAY_OUT_BYTES) {
            let (done, _) = device.write(at, filled(&*device, LAY_OUT_BYTES as u32)).await;
            done.map_err(|e| e.to_string())?;
        }
        Ok(())
    })
}

/// Writes groups to the device alone, round and round.
pub(super) fn device(path: &Path, pattern: Pattern, time: Duration) -> Result<Written, Failed> {
    on_executor(path.to_owned(), pattern.wal_sync(), move |runtime, device| async move {
        let places = device.len() / u64::from(pattern.group_bytes);
        let (mut writes, mut latency) = (Writes::new(runtime.clone(), device.clone()), histogram());
        let mut spare: Vec<IoBuf> = (0..pattern.in_flight).map(|_| filled(&*device, pattern.group_bytes)).collect();
        let (began, mut next, mut bytes) = (runtime.mono(), 0, 0);
        let until = began.plus(time);
        loop {
            while runtime.mono() < until {
                let Some(buf) = spare.pop() else { break };
                writes.start(Tag::Group(next), (next % places) * u64::from(pattern.group_bytes), buf);
                next += 1;
            }
            let Some(done) = writes.next().await? else { break };
            record(&mut latency, done.took);
            bytes += u64::from(pattern.group_bytes);
            spare.push(done.buf);
            rest(&runtime, pattern).await;
        }
        Ok(written(runtime.mono().since(began), bytes, &latency))
    })
}

/// Pushes one batch a group into the log, seals it, writes it, and trims behind it.
pub(super) fn log(path: &Path, pattern: Pattern, time: Duration) -> Result<Written, Failed> {
    on_executor(path.to_owned(), pattern.wal_sync(), move |runtime, device| async move {
        forget_slice(&device).await?;
        let config = LogConfig { max_group_bytes: 1 << 20, marker_idle: Duration::MAX, ..LogConfig::default() };
        create(device.clone(), IDENTITY, config, runtime.random()).await.map_err(|e| e.to_string())?;
        let opened = open(device.clone(), IDENTITY, config, runtime.random(), false).await;
        let mut load = LogLoad {
            log: opened.map_err(|e| e.to_string())?.log,
            writes: Writes::new(runtime.clone(), device),
            batch: batch(pattern.group_bytes),
            ends: BTreeMap::new(),
            offset: 0,
            latency: histogram(),
            bytes: 0,
        };
        let began = runtime.mono();
        load.run(&runtime, pattern, began.plus(time)).await?;
        Ok(written(runtime.mono().since(began), load.bytes, &load.latency))
    })
}

async fn rest(runtime: &Rc<dyn Runtime>, pattern: Pattern) {
    if pattern.pause_ms > 0 {
        runtime.sleep_until(runtime.mono().plus(Duration::from_millis(pattern.pause_ms))).await;
    }
}

struct LogLoad {
    log: Log,
    writes: Writes,
    batch: (BatchHead, Vec<u8>),
    /// Groups under way.
    ends: BTreeMap<u64, GroupId>,
    offset: i64,
    latency: Histogram<u64>,
    bytes: u64,
}

impl LogLoad {
    async fn run(&mut self, runtime: &Rc<dyn Runtime>, pattern: Pattern, until: Mono) -> Result<(), Failed> {
        loop {
            while runtime.mono() < until && self.ends.len() < pattern.in_flight && self.write_group(runtime)? {}
            let Some(done) = self.writes.next().await? else { return Ok(()) };
            match done.tag {
                Tag::Group(number) => {
                    let id = self.ends.remove(&number).ok_or("a group was written twice")?;
                    self.log.written(id, Ok(())).map_err(|e| e.to_string())?;
                    record(&mut self.latency, done.took);
                    self.bytes += done.buf.len() as u64;
                    rest(runtime, pattern).await;
                    // In the broker a trim follows an upload; here one quarter of the ring stands for it.
                    if self.log.used_bytes() * 4 > self.log.capacity_bytes() {
                        let write = self.log.trim(self.log.durable());
                        self.start_superblock(write);
                    }
                }
                Tag::Superblock => {
                    let next = self.log.superblock_written(Ok(())).map_err(|e| e.to_string())?;
                    self.start_superblock(next);
                }
            }
        }
    }

    /// Starts the next group; false when the ring is full for the moment.
    fn write_group(&mut self, runtime: &Rc<dyn Runtime>) -> Result<bool, Failed> {
        let (head, body) = &mut self.batch;
        let Ok(room) = self.log.reserve((HEAD_LEN + body.len()) as u32) else { return Ok(false) };
        head.stamp(Offset(self.offset), LeaderEpoch(0));
        self.log.push(room, PartitionId::default(), head, body);
        let write = self.log.seal(runtime.mono()).ok_or("a group has to wait though none is in its way")?;
        self.ends.insert(self.offset.unsigned_abs(), write.id);
        self.writes.start(Tag::Group(self.offset.unsigned_abs()), write.at, write.buf);
        self.offset += 1;
        Ok(true)
    }

    fn start_superblock(&mut self, write: Option<SuperblockWrite>) {
        if let Some(SuperblockWrite { at, buf }) = write {
            self.writes.start(Tag::Superblock, at, buf);
        }
    }
}

/// A batch that makes a group of exactly so many bytes.
fn batch(group_bytes: u32) -> (BatchHead, Vec<u8>) {
    let body = vec![7; group_bytes as usize - GROUP_HEADER_LEN - ENTRY_LEN - HEAD_LEN];
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
    head.set_crc(head.compute_crc(&body));
    (head, body)
}

/// Overwrites the superblocks of the log before.
async fn forget_slice(device: &Rc<dyn Device>) -> Result<(), Failed> {
    let mut blank = device.alloc(SUPERBLOCKS as u32);
    blank.zero_to((SUPERBLOCKS * BLOCK) as usize);
    device.write(0, blank).await.0.map_err(|e| e.to_string())
}

fn filled(device: &dyn Device, bytes: u32) -> IoBuf {
    let mut buf = device.alloc(bytes / BLOCK as u32);
    buf.put(&vec![7; bytes as usize]);
    buf
}

#[derive(Clone, Copy)]
enum Tag {
    Group(u64),
    Superblock,
}

struct Done {
    tag: Tag,
    took: Duration,
    buf: IoBuf,
}

/// How one write ended.
type Ending = Result<Done, Failed>;

/// Writes under way, each in a task of its own, as in a shard.
struct Writes {
    runtime: Rc<dyn Runtime>,
    device: Rc<dyn Device>,
    ended: (flume::Sender<Ending>, flume::Receiver<Ending>),
    under_way: usize,
}

impl Writes {
    fn new(runtime: Rc<dyn Runtime>, device: Rc<dyn Device>) -> Writes {
        Writes { runtime, device, ended: flume::unbounded(), under_way: 0 }
    }

    fn start(&mut self, tag: Tag, at: u64, buf: IoBuf) {
        let (write, ended, runtime) = (self.device.write(at, buf), self.ended.0.clone(), self.runtime.clone());
        self.under_way += 1;
        let began = runtime.mono();
        let task = async move {
            let (done, buf) = write.await;
            let took = runtime.mono().since(began);
            let _gone = ended.try_send(done.map(|()| Done { tag, took, buf }).map_err(|e| e.to_string()));
        };
        self.runtime.spawn(Queue::Hot, "write", Box::pin(task));
    }

    /// The next write that ends; `None` when none is under way.
    async fn next(&mut self) -> Result<Option<Done>, Failed> {
        if self.under_way == 0 {
            return Ok(None);
        }
        self.under_way -= 1;
        self.ended.1.recv_async().await.map_err(|e| e.to_string())?.map(Some)
    }
}

fn record(latency: &mut Histogram<u64>, took: Duration) {
    latency.saturating_record(took.as_micros() as u64);
}

fn written(took: Duration, bytes: u64, latency: &Histogram<u64>) -> Written {
    Written { seconds: took.as_secs_f64(), bytes, latency: Latency::of(latency), sync_latency: None }
}

/// Opens the file on an executor of its own, runs `work` there to its end, and brings back what came of it.
fn on_executor<T, F>(
    path: PathBuf,
    sync: WalSync,
    work: impl FnOnce(Rc<dyn Runtime>, Rc<dyn Device>) -> F + Send + 'static,
) -> Result<T, Failed>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failed>> + 'static,
{
    let watchdog = Watchdog::start(1).map_err(|e| e.to_string())?;
    let (sender, outcome) = channel();
    let heart = watchdog.hearts()[0].clone();
    let executor = start_executor(ShardId(0), heart, move |runtime| async move {
        let options = SliceOptions { sync, ..SliceOptions::default() };
        let done = match GlommioDevice::open(&path, options).await {
            Ok(device) => work(runtime, Rc::new(device)).await,
            Err(why) => Err(why.to_string()),
        };
        let _gone = sender.send(done);
    })?;
    executor.join()?;
    outcome.recv().map_err(|e| e.to_string())?
}
