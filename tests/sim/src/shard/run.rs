//! One history: storms and crashes, then calm, then everything is read back.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use thalweg_record::{PartitionId, TopicId};
use thalweg_shards::{
    msg::{ConnId, Control, PartitionSettings},
    runtime::{
        Queue,
        seeded::{Ended, Node, Stream, World},
    },
};
use thalweg_wal::device::{SimulatedDevice, SimulatedFaults};

use super::{
    broker::{Broker, Machine, SLICES_BYTES, Start, identity, log_config},
    metadata::Metadata,
    producer::Producer,
    reader::{Got, Reader},
    scene::Scene,
};
use crate::{
    bucket::Bucket,
    fuse::{Counts, Fuse},
    model::Model,
    plant::Plant,
    rot,
    violation::{Violation, caught},
};

const BUCKET: Node = Node(1);
const CLIENTS: Node = Node(2);
const DISK: Node = Node(3);
const PARTITIONS: usize = 4;
const PRODUCERS: u64 = 5;
const READERS: u64 = 3;
/// More polls than any phase needs: what spends them runs in circles.
const BUDGET: u64 = 5_000_000;
/// After the faults have ended, everything is done within this virtual time.
const CALM: Duration = Duration::from_secs(120);

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Equal for equal seeds, in any process.
    pub digest: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Starts of the broker.
    pub starts: u32,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Batches read and judged.
    pub read: u64,
    /// Reads that memory answered.
    pub reads_at_once: u64,
    /// Reads that the ring or the bucket answered.
    pub reads_late: u64,
    /// Ranges read from the bucket.
    pub store_gets: u64,
    /// Objects in the bucket at the end.
    pub objects: usize,
    /// Virtual time at the end, in seconds.
    pub virtual_seconds: u64,
}

/// Runs the history of `seed`.
///
/// # Errors
/// The first invariant that did not hold; a panic of the code under test is one.
pub fn run(seed: u64, plant: Plant, trace: bool) -> Result<Report, Violation> {
    plant.put_in();
    caught(|| History::new(seed, plant, trace).run_to_the_end())
}

struct History {
    world: Rc<World>,
    scene: Rc<Scene>,
    machine: Machine,
    bucket: Rc<Bucket>,
    fuse: Rc<Fuse>,
    random: Stream,
    /// What rots.
    rot: Stream,
    seed: u64,
    plant: Plant,
    /// Many small batches, two groups in flight most of the time, short lives: nearly every group is one block, so that a
    /// group of a later life ends where one of an earlier life begins.
    hasty: bool,
}

impl History {
    fn new(seed: u64, plant: Plant, trace: bool) -> History {
        let world = World::new(seed);
        let fuse = Rc::new(Fuse::default());
        let partitions: Vec<_> = (0..PARTITIONS).map(|n| (partition(n), settings(n))).collect();
        let model = Model::new(partitions.iter().map(|(id, settings)| (*id, settings.retention_bytes.is_some())));
        let scene = Rc::new(Scene {
            world: world.clone(),
            runtime: world.runtime(CLIENTS),
            model: RefCell::new(model),
            address: RefCell::default(),
            partitions: partitions.iter().map(|(id, _)| *id).collect(),
            stop: Default::default(),
            ended: Default::default(),
            at_once: Default::default(),
            late: Default::default(),
            trace,
        });
        let (bucket, store) =
            Bucket::start(world.runtime(BUCKET), Stream::new(seed, 0x20), Stream::new(seed, 0x22), fuse.clone());
        let machine = Machine {
            world: world.clone(),
            scene: scene.clone(),
            device: disk(&world, seed, fuse.clone()),
            metadata: Metadata::new(&partitions, plant),
            store: Arc::new(store),
            plant,
            seed,
            starts: 0,
        };
        History {
            world,
            scene,
            machine,
            bucket,
            fuse,
            random: Stream::new(seed, 0x30),
            rot: Stream::new(seed, 0x31),
            seed,
            plant,
            hasty: seed % 2 == 0,
        }
    }

    /// [`History::run`]; then nobody of it is left, for tasks and world hold each other.
    fn run_to_the_end(self) -> Result<Report, Violation> {
        let world = self.world.clone();
        let report = self.run();
        world.crash_all(Node(0)..Node(u32::MAX));
        report
    }

    fn run(mut self) -> Result<Report, Violation> {
        self.create_slice()?;
        self.spawn_clients();
        let lives = if self.hasty { 25 } else { 4 };
        for _ in 0..lives + self.random.below(12) {
            self.storm()?;
        }
        let broker = self.calm()?;
        self.end(broker)?;
        Ok(self.report())
    }

    fn create_slice(&mut self) -> Result<(), Violation> {
        let made = Rc::new(RefCell::new(None));
        let (device, outcome) = (Rc::new(self.machine.device.clone()), made.clone());
        let (config, random) = (log_config(self.plant), self.random.next());
        let create = async move {
            let created = thalweg_wal::create(device, identity(), config, random).await;
            *outcome.borrow_mut() = Some(created.map_err(|e| e.to_string()));
        };
        self.world.runtime(DISK).spawn(Queue::Hot, "create", Box::pin(create));
        self.world.run_until(BUDGET, || made.borrow().is_some());
        made.take().unwrap_or(Err("the slice is never created".to_owned())).map_err(Violation)
    }

    fn spawn_clients(&mut self) {
        let (batches, longest, pause) = if self.hasty { (250, 60, 2) } else { (60, 3_000, 40) };
        for n in 0..PRODUCERS {
            let producer = Producer {
                id: 1000 + n as i64,
                partition: partition(n as usize % PARTITIONS),
                batches: batches + self.random.below(60) as u32,
                longest_value: longest,
                pause_ms: pause,
                random: Stream::new(self.seed, 0x100 + n),
            };
            let task = Box::pin(producer.run(self.scene.clone()));
            self.scene.runtime.spawn(Queue::Hot, "producer", task);
        }
        for n in 0..READERS {
            let task = Box::pin(self.reader(n).run());
            self.scene.runtime.spawn(Queue::Hot, "reader", task);
        }
    }

    fn reader(&self, n: u64) -> Reader {
        Reader { conn: ConnId(n), random: Stream::new(self.seed, 0x200 + n), scene: self.scene.clone() }
    }

    /// A life that ends in a crash.
    fn storm(&mut self) -> Result<(), Violation> {
        let rare = |random: &mut Stream, per_million: u32| if random.one_in(3) { per_million } else { 0 };
        let faults = SimulatedFaults {
            write_errors_per_million: rare(&mut self.random, 5_000),
            read_errors_per_million: rare(&mut self.random, 5_000),
            ok_before_durable: self.plant == Plant::EarlyOk,
            ..SimulatedFaults::default()
        };
        self.machine.device.set_faults(faults);
        self.bucket.fails_one_in.set(if self.random.one_in(2) { 2 + self.random.below(20) } else { 0 });
        self.bucket.latency_us.set(1 + self.random.below(200_000));
        let last = self.world.mono().plus(Duration::from_millis(100 + self.random.below(4_000)));
        let kind = if self.machine.starts == 0 { 4 } else { self.random.below(if self.hasty { 4 } else { 5 }) };
        let (counts, n, while_opening) = match kind {
            0 => (Counts::Store, 1 + self.random.below(40), false),
            1 => (Counts::Device, 1 + self.random.below(30), true),
            // Short lives: a few groups, some of them in flight.
            2 | 3 => (Counts::Device, 1 + self.random.below(10), false),
            _ => (Counts::Device, 1 + self.random.below(600), false),
        };
        self.fuse.clear();
        if while_opening {
            self.fuse.set(counts, n);
        }
        let broker = self.machine.start();
        let over = |this: &History| this.fuse.blown() || this.world.mono() >= last;
        let mut ended = self.wait(&broker, |this| over(this) || *broker.start.borrow() == Start::Serving);
        if !while_opening && ended == Ended::Done {
            self.fuse.set(counts, n);
            ended = self.wait(&broker, over);
        }
        self.judge_life(&broker, ended, true)?;
        self.crash(&broker);
        Ok(())
    }

    /// Runs until `done`, or the life ends otherwise.
    fn wait(&self, broker: &Broker, done: impl Fn(&History) -> bool) -> Ended {
        self.world.run_until(BUDGET, || {
            let over = matches!(*broker.start.borrow(), Start::Failed(_) | Start::Broken(_));
            done(self) || over || !broker.failed.is_empty() || self.scene.model.borrow().violation().is_some()
        })
    }

    fn judge_life(&self, broker: &Broker, ended: Ended, faults: bool) -> Result<(), Violation> {
        if let Some(why) = self.scene.model.borrow().violation() {
            return Err(Violation(why.to_owned()));
        }
        match &*broker.start.borrow() {
            Start::Broken(why) => return Err(Violation(format!("the broker does not start: {why}"))),
            Start::Failed(why) if !faults => return Err(Violation(format!("the broker does not start: {why}"))),
            _ => {}
        }
        if let Ok(why) = broker.failed.try_recv() {
            self.scene.trace(|| format!("gave up: {why}"));
            if !faults || why.contains("disagrees") {
                return Err(Violation(format!("the shard gave up: {why}")));
            }
        }
        match ended {
            Ended::Done => Ok(()),
            other => Err(Violation(format!("no progress: {other:?}"))),
        }
    }

    /// The power goes, or only the process.
    fn crash(&mut self, broker: &Broker) {
        let power = self.random.below(4) > 0;
        self.scene.trace(|| format!("crash, power lost: {power}"));
        self.scene.address.replace(None);
        self.machine.device = if power { self.machine.device.crash() } else { self.machine.device.kill() };
        self.world.crash(broker.node);
        self.machine.metadata.crash(&mut self.random);
        if self.rot.one_in(2) {
            rot::hit_superblock(&self.machine.device, &mut self.rot);
            rot::settle(&self.machine.device);
        }
        self.world.note(u64::from(self.machine.device.digest()));
    }

    /// The faults end: the producers finish, everything is uploaded, the readers end.
    fn calm(&mut self) -> Result<Broker, Violation> {
        self.machine.device.set_faults(SimulatedFaults {
            ok_before_durable: self.plant == Plant::EarlyOk,
            ..SimulatedFaults::default()
        });
        self.bucket.fails_one_in.set(0);
        self.bucket.latency_us.set(10_000);
        self.fuse.clear();
        let broker = self.machine.start();
        self.phase(&broker, "the broker does not start", |_| *broker.start.borrow() == Start::Serving)?;
        self.phase(&broker, "the producers do not finish", |this| this.scene.ended.get() >= PRODUCERS as usize)?;
        self.phase(&broker, "uploads do not move on", |this| {
            let model = this.scene.model.borrow();
            let uploaded = |id: &PartitionId| this.machine.metadata.committed_end(*id) >= model.floor(*id);
            this.scene.partitions.iter().all(uploaded)
        })?;
        self.scene.stop.set(true);
        let all = (PRODUCERS + READERS) as usize;
        self.phase(&broker, "the readers do not end", |this| this.scene.ended.get() == all)?;
        Ok(broker)
    }

    fn phase(&self, broker: &Broker, what: &str, done: impl Fn(&History) -> bool) -> Result<(), Violation> {
        let last = self.world.mono().plus(CALM);
        let ended = self.wait(broker, |this| done(this) || this.world.mono() >= last);
        self.judge_life(broker, ended, false).map_err(|Violation(why)| Violation(format!("{what}: {why}")))?;
        if done(self) { Ok(()) } else { Err(Violation(format!("{what} within {} s", CALM.as_secs()))) }
    }

    /// One more crash or a stop in order; then all is read from the log start to the end.
    fn end(&mut self, broker: Broker) -> Result<(), Violation> {
        if self.random.one_in(2) {
            let (done, stopped) = flume::bounded(1);
            let deadline = self.world.mono().plus(Duration::from_secs(10));
            if let Some(lane) = self.scene.address.borrow().clone() {
                lane.control(Control::Stop { deadline, done });
            }
            self.phase(&broker, "the broker does not stop", |_| !stopped.is_empty())?;
            if let Ok(left @ 1..) = stopped.try_recv() {
                return Err(Violation(format!("{left} bytes stay in the WAL after a stop")));
            }
        }
        self.crash(&broker);
        let broker = self.machine.start();
        self.phase(&broker, "the last start", |_| *broker.start.borrow() == Start::Serving)?;
        let read = Rc::new(RefCell::new(0));
        for (n, partition) in self.scene.partitions.iter().copied().enumerate() {
            let (mut reader, read) = (self.reader(100 + n as u64), read.clone());
            let start = self.machine.metadata.log_start(partition);
            let task = async move {
                let (mut start, mut offset) = (start, start);
                let end = reader.scene.model.borrow().floor(partition);
                while offset < end {
                    match reader.fetch(partition, offset, 8_000).await {
                        Got::Next(next) => offset = next,
                        Got::Expired(to) => (start, offset) = (to, to),
                        Got::Again => reader.scene.pause(Duration::from_millis(10)).await,
                    }
                }
                reader.scene.model.borrow_mut().complete(partition, start, end);
                *read.borrow_mut() += 1;
            };
            self.scene.runtime.spawn(Queue::Hot, "read all", Box::pin(task));
        }
        self.phase(&broker, "reading all back", |_| *read.borrow() == PARTITIONS)
    }

    fn report(&self) -> Report {
        let objects = self.bucket.store.objects();
        for (key, content) in &objects {
            self.world
                .note(u64::from(crc32c::crc32c(key.as_str().as_bytes())) << 32 | u64::from(crc32c::crc32c(content)));
        }
        self.world.note(u64::from(self.machine.device.digest()));
        let model = self.scene.model.borrow();
        Report {
            digest: self.world.digest(),
            polls: self.world.polls(),
            starts: self.machine.starts,
            acknowledged: model.acknowledged,
            read: model.read,
            reads_at_once: self.scene.at_once.get(),
            reads_late: self.scene.late.get(),
            store_gets: self.bucket.gets.get(),
            objects: objects.len(),
            virtual_seconds: self.world.mono().0 / 1_000_000_000,
        }
    }
}

fn partition(n: usize) -> PartitionId {
    PartitionId { topic: TopicId([7; 16]), index: n as i32 }
}

/// The last partition's retention cuts it.
fn settings(n: usize) -> PartitionSettings {
    PartitionSettings {
        max_message_bytes: 16_000,
        retention_ms: None,
        retention_bytes: (n == PARTITIONS - 1).then_some(20_000),
        timestamp_after_max_ms: None,
        ..PartitionSettings::KAFKA_DEFAULTS
    }
}

/// A disk whose operations take up to 3 or 20 ms each and may overtake one another.
fn disk(world: &Rc<World>, seed: u64, fuse: Rc<Fuse>) -> SimulatedDevice {
    let runtime = world.runtime(DISK);
    let mut random = Stream::new(seed, 0x10);
    let slowest_us = if random.one_in(2) { 3_000 } else { 20_000 };
    let random = RefCell::new(random);
    let delay = move |_| -> thalweg_shards::runtime::LocalBoxFuture<'static, ()> {
        fuse.count(Counts::Device);
        let us = random.borrow_mut().below(slowest_us);
        let (done, fuse) = (runtime.sleep_until(runtime.mono().plus(Duration::from_micros(us))), fuse.clone());
        Box::pin(async move {
            done.await;
            fuse.count(Counts::Device);
        })
    };
    SimulatedDevice::new(SLICES_BYTES[(seed % 3) as usize], seed, SimulatedFaults::default(), Rc::new(delay))
}
