//! One history of the whole broker: storms and crashes, then calm, then everything is read back.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use thalweg_objectstore::ObjectStore;
use thalweg_record::Offset;
use thalweg_shards::runtime::{
    Queue,
    seeded::{Ended, Node, Stream, World},
};
use thalweg_wal::device::SimulatedFaults;

use super::{
    admin::{Admin, Wanted},
    alterer::Alterer,
    client::Client,
    disks::Disks,
    gauges::Gauges,
    member::Member,
    metadata::Metadata,
    mover,
    reader::{Got, Reader},
    scene::{Life as TopicLife, Scene},
    session::SessionReader,
    site::{self, Life, MOST_SHARDS, RINGS_BYTES, Shape, Site, Start},
    storm::{End, Since},
};
use crate::{
    bucket::Bucket,
    fuse::Fuse,
    model::Model,
    plant::Plant,
    report::Report,
    rot::{self, Harm},
    violation::{Violation, caught},
};

const BUCKET: Node = Node(1);
const CLIENTS: Node = Node(2);
const DISK: Node = Node(3);
const READERS: u64 = 3;
const CHURNED: [&str; 2] = ["comes-and-goes", "goes-and-comes"];
/// More polls than any phase needs: what spends them runs in circles.
const BUDGET: u64 = 20_000_000;
/// After the faults have ended, everything is done within this virtual time.
const CALM: Duration = Duration::from_secs(180);
/// Longer than it takes until two snapshots of the metadata show what was done last.
const REST: Duration = Duration::from_secs(15);
/// In so long a put lands whose sender has died, and in so many polls.
const LANDING: Duration = Duration::from_secs(1);
const LANDING_POLLS: u64 = 10_000;
/// How long a stop in order may upload.
const STOP: Duration = Duration::from_secs(20);
/// Requests that ever wait in one shard's mailbox.
const MAILBOX: usize = 300;

/// Of these, what coordinators send.
const COORDINATORS: usize = 40;

/// Runs the history of `seed`.
///
/// # Errors
/// The first invariant that did not hold; a panic of the code under test is one.
pub fn run(seed: u64, plant: Plant, trace: bool) -> Result<Report, Violation> {
    plant.put_in();
    let gauges = Gauges::default();
    let report =
        metrics::with_local_recorder(&gauges, || caught(|| History::new(seed, plant, trace).run_to_the_end()))?;
    match gauges.outcome() {
        (Some(broken), _) => Err(Violation(broken)),
        (None, figures) => {
            let mut compacted = gauges.compacted();
            let cleaned = compacted.remove("cleaned").unwrap_or(0);
            let manifests = ["folded", "released", "unfolded"].map(|what| compacted.remove(what).unwrap_or(0));
            Ok(Report { figures, compacted, manifests, cleaned, ..report })
        }
    }
}

pub(crate) struct History {
    /// The faults of `storm`.
    pub(crate) faults: SimulatedFaults,
    /// What rots.
    pub(crate) rot: Stream,
    pub(crate) scene: Rc<Scene>,
    pub(crate) site: Site,
    pub(crate) bucket: Rc<Bucket>,
    pub(crate) random: Stream,
    pub(crate) plant: Plant,
    /// Many small batches and short lives.
    pub(crate) hasty: bool,
    /// How far the wall clock is from where it would be.
    pub(crate) jumped_ms: Rc<Cell<i64>>,
    world: Rc<World>,
    fuse: Rc<Fuse>,
    shape: Shape,
    /// The last shape that served.
    fits: Shape,
    /// The metadata was made anew from the bucket at the end.
    rebuilt: bool,
    seed: u64,
    /// Where partitions go.
    moves: Stream,
}

impl History {
    fn new(seed: u64, plant: Plant, trace: bool) -> History {
        let world = World::new(seed);
        let fuse = Rc::new(Fuse::default());
        let mut random = Stream::new(seed, 0x30);
        let scene = Rc::new(Scene {
            world: world.clone(),
            runtime: world.runtime(CLIENTS),
            model: RefCell::new(Model::new(std::iter::empty())),
            address: RefCell::default(),
            topics: RefCell::default(),
            committed: RefCell::default(),
            settle: Cell::default(),
            stop: Cell::default(),
            calm: Cell::default(),
            producing: Cell::default(),
            working: Cell::default(),
            commits: Cell::default(),
            deletions: Cell::default(),
            limits: Cell::default(),
            alterations: Cell::default(),
            sessions: Cell::default(),
            look_ups: Cell::default(),
            moves: Cell::default(),
            trace,
        });
        let (bucket, store) =
            Bucket::start(world.runtime(BUCKET), Stream::new(seed, 0x20), Stream::new(seed, 0x22), fuse.clone());
        let metadata = Metadata::new(bucket.doorstep(), Stream::new(seed, 0x21), fuse.clone(), plant);
        let site = Site {
            world: world.clone(),
            scene: scene.clone(),
            disks: Arc::new(Disks::new(
                world.runtime(DISK),
                Stream::new(seed, 0x10),
                Stream::new(seed, 0x11),
                fuse.clone(),
            )),
            metadata,
            store: Arc::new(store) as Arc<dyn ObjectStore>,
            doorstep: bucket.doorstep(),
            fuse: fuse.clone(),
            config: site::config(seed),
            tail_cache_bytes: if [3, 5, 7].contains(&(seed % 8)) {
                site::SMALL_TAIL_CACHE_BYTES
            } else {
                site::TAIL_CACHE_BYTES
            },
            starts: 0,
            harm: Harm::Hidden,
            refusals: 0,
        };
        let shape = draw_shape(&mut random, &mut Stream::new(seed, 0x32));
        let (jumped_ms, hasty) = (Rc::default(), seed % 2 == 0);
        let (faults, rot) = (SimulatedFaults::default(), Stream::new(seed, 0x31));
        let fits = shape;
        History {
            faults,
            rot,
            scene,
            site,
            bucket,
            random,
            plant,
            hasty,
            jumped_ms,
            world,
            fuse,
            shape,
            fits,
            rebuilt: false,
            seed,
            moves: Stream::new(seed, 0x33),
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
        self.spawn_clients();
        let lives = if self.hasty { 8 } else { 3 };
        for _ in 0..lives + self.random.below(6) {
            self.storm()?;
        }
        let life = self.calm()?;
        self.end(life)?;
        Ok(self.report())
    }

    fn stream(&self, purpose: u64) -> Stream {
        Stream::new(self.seed, purpose)
    }

    fn spawn_clients(&mut self) {
        let stays = Wanted { name: "stays", partitions: 1 + self.random.below(4) as i32, cut: false, keyed: false };
        let cut = Wanted { name: "is-cut", partitions: 1 + self.random.below(2) as i32, cut: true, keyed: false };
        let keyed = Wanted { name: "keyed", partitions: 1, cut: false, keyed: true };
        let batches = if self.hasty { 80 } else { 30 };
        Admin::found(&self.scene, stays, batches, self.hasty, self.stream(0x100));
        Admin::found(&self.scene, cut, batches, self.hasty, self.stream(0x101));
        Admin::found(&self.scene, keyed, 2 * batches, self.hasty, self.stream(0x102));
        for (name, n) in CHURNED.into_iter().zip(0x110..) {
            Admin::churn(&self.scene, name, self.hasty, self.stream(n));
        }
        (0..READERS).for_each(|n| Reader::start(&self.scene, self.stream(0x200 + n)));
        Reader::audit(&self.scene, "keyed", self.stream(0x210));
        SessionReader::start(&self.scene, self.stream(0x280));
        Alterer::start(&self.scene, ["stays", "is-cut", "keyed"], self.stream(0x290));
        for n in 0..2 + self.random.below(2) {
            Member::start(&self.scene, "first", "stays", self.stream(0x300 + n));
        }
        Member::start(&self.scene, "second", "is-cut", self.stream(0x310));
    }

    /// A life that ends in a crash or a stop.
    fn storm(&mut self) -> Result<(), Violation> {
        if self.site.starts > 0 && self.random.one_in(2) {
            self.shape = draw_shape(&mut self.random, &mut self.rot);
        }
        self.draw_faults();
        self.draw_lag();
        let end = self.draw_end();
        let longest = if self.random.one_in(3) { 15_000 } else { 3_000 };
        let last = self.world.mono().plus(Duration::from_millis(100 + self.random.below(longest)));
        self.fuse.clear();
        if let End::At(counts, n, Since::Start) = end {
            self.fuse.set(counts, n);
        }
        self.scene.trace(|| format!("a life to end {end:?}"));
        let life = self.site.start(self.shape);
        self.start_gremlin(&life);
        let over = |this: &History| this.fuse.blown() || this.world.mono() >= last;
        let mut ended = self.wait(&life, |this| over(this) || *life.start.borrow() == Start::Serving);
        if ended == Ended::Done && *life.start.borrow() == Start::Serving {
            self.fits = self.shape;
            self.begin_rot();
            self.start_mover(&life);
            if let End::At(counts, n, Since::Serving) = end {
                self.fuse.set(counts, n);
            }
            ended = self.wait(&life, over);
        }
        self.judge_life(&life, ended, true)?;
        if *life.start.borrow() == Start::TooSmall {
            self.shape = self.fits;
        }
        if end == End::Stop || self.random.one_in(4) {
            self.stop(&life, true)?;
        }
        let refused = matches!(&*life.start.borrow(), Start::Damaged(_));
        let power = self.random.below(4) > 0;
        self.site.crash(life, power);
        if refused {
            self.site.refusals += 1;
            self.site.disks.heal();
        }
        self.rot_at_rest();
        Ok(())
    }

    /// In three of four histories partitions move between shards.
    fn start_mover(&mut self, life: &Life) {
        let random = Stream::new(self.moves.next(), 4);
        if self.seed % 4 != 0 {
            mover::start(&self.scene, life, random);
        }
    }

    /// Runs until `done`, or the life ends otherwise.
    fn wait(&self, life: &Life, done: impl Fn(&History) -> bool) -> Ended {
        let polls = Cell::new(0u32);
        self.world.run_until(BUDGET, || {
            polls.set(polls.get() + 1);
            let most = if life.shape.narrow { usize::from(life.shape.shards) + COORDINATORS } else { MAILBOX };
            if polls.get() % 64 == 0 && life.waiting() > most {
                let why = format!("{} requests wait in a shard's mailbox", life.waiting());
                self.scene.model.borrow_mut().broken(why);
            }
            let over = !matches!(*life.start.borrow(), Start::Opening | Start::Serving);
            done(self) || over || !life.failed.is_empty() || self.scene.model.borrow().violation().is_some()
        })
    }

    fn judge_life(&self, life: &Life, ended: Ended, faults: bool) -> Result<(), Violation> {
        if let Some(why) = self.scene.model.borrow().violation() {
            return Err(Violation(why.to_owned()));
        }
        match &*life.start.borrow() {
            Start::Broken(why) => return Err(Violation(format!("the broker does not start: {why}"))),
            Start::Damaged(why) if !faults || self.site.harm != Harm::Acknowledged => {
                return Err(Violation(format!("the broker does not start: {why}")));
            }
            Start::Failed(why) if !faults => return Err(Violation(format!("the broker does not start: {why}"))),
            Start::Failed(why) | Start::Damaged(why) => self.scene.trace(|| format!("did not start: {why}")),
            _ => {}
        }
        if !faults && self.fuse.blown() {
            return Err(Violation("the metadata gave up".to_owned()));
        }
        if let Ok(why) = life.failed.try_recv() {
            self.scene.trace(|| format!("gave up: {why}"));
            if !faults || why.contains("disagrees") {
                return Err(Violation(format!("the broker gave up: {why}")));
            }
        }
        match ended {
            Ended::Done => Ok(()),
            other => Err(Violation(format!("no progress: {other:?}"))),
        }
    }

    /// Stops in order. With faults it may not get far, but it ends.
    fn stop(&mut self, life: &Life, faults: bool) -> Result<(), Violation> {
        let Some(stopped) = life.stop(STOP) else { return Ok(()) };
        let last = self.world.mono().plus(STOP + Duration::from_secs(60));
        let ended = self.world.run_until(BUDGET, || {
            let violated = self.scene.model.borrow().violation().is_some();
            !stopped.is_empty() || violated || self.fuse.blown() || self.world.mono() >= last
        });
        if let Some(why) = self.scene.model.borrow().violation() {
            return Err(Violation(why.to_owned()));
        }
        let outcome = stopped.try_recv();
        self.scene.trace(|| format!("stopped: {outcome:?}"));
        match outcome {
            Ok(Ok(())) => Ok(()),
            _ if faults && self.fuse.blown() => Ok(()),
            Ok(Err(why)) => Err(Violation(format!("the stop fails: {why}"))),
            Err(_) => Err(Violation(format!("the broker does not stop: {ended:?}"))),
        }
    }

    /// The faults end: the producers finish, then the readers and groups.
    fn calm(&mut self) -> Result<Life, Violation> {
        let faults = SimulatedFaults { ok_before_durable: self.plant == Plant::EarlyOk, ..SimulatedFaults::default() };
        self.site.disks.set_faults(faults);
        self.site.disks.heal();
        self.site.harm = Harm::Hidden;
        self.bucket.fails_one_in.set(0);
        self.bucket.latency_us.set(10_000);
        self.bucket.lag_ms.set(0);
        self.bucket.set_down(false);
        self.fuse.clear();
        self.scene.trace(|| "calm".to_owned());
        let life = self.start_in_calm("the broker does not start")?;
        self.scene.calm.set(true);
        self.scene.settle.set(true);
        self.start_mover(&life);
        self.phase(&life, "the producers do not finish", |this| this.scene.producing.get() == 0)?;
        self.scene.stop.set(true);
        self.phase(&life, "the readers and groups do not end", |this| this.scene.working.get() == 0)?;
        Ok(life)
    }

    /// Starts in the shape that is wanted, or in the one that served last when what the log holds does not fit.
    fn start_in_calm(&mut self, what: &str) -> Result<Life, Violation> {
        // One request at a time makes all wait longer than what is due in calm may take.
        (self.shape.narrow, self.fits.narrow) = (false, false);
        loop {
            let life = self.site.start(self.shape);
            self.phase(&life, what, |_| *life.start.borrow() != Start::Opening)?;
            if *life.start.borrow() == Start::Serving {
                self.fits = self.shape;
                return Ok(life);
            }
            if self.shape == self.fits {
                return Err(Violation(format!("{what}: what the log holds does not fit into what held it")));
            }
            self.shape = self.fits;
            self.site.crash(life, false);
        }
    }

    fn phase(&self, life: &Life, what: &str, done: impl Fn(&History) -> bool) -> Result<(), Violation> {
        let last = self.world.mono().plus(CALM);
        let ended = self.wait(life, |this| done(this) || this.world.mono() >= last);
        self.judge_life(life, ended, false).map_err(|Violation(why)| Violation(format!("{what}: {why}")))?;
        if done(self) {
            return Ok(());
        }
        let (producing, working) = (self.scene.producing.get(), self.scene.working.get());
        Err(Violation(format!("{what} within {} s: {producing} and {working} are at work", CALM.as_secs())))
    }

    /// A crash; or a stop in order, after which the log is not needed any more, and is taken away. Then all is read from the
    /// log starts to the ends.
    fn end(&mut self, life: Life) -> Result<(), Violation> {
        let (stops, bare) = (self.random.one_in(2), self.rot.one_in(2));
        if bare && !stops {
            // What was deleted is in the last snapshots.
            let until = self.world.mono().plus(REST);
            self.phase(&life, "a rest", |this| this.world.mono() >= until)?;
        }
        if stops {
            self.stop(&life, false)?;
            self.site.crash(life, false);
            self.site.disks.lose_all();
            self.shape = draw_shape(&mut self.random, &mut self.rot);
        } else {
            // A removed slice that comes back says things that no metadata remembers any more.
            self.site.crash(life, !bare);
            self.site.disks.hit_each(rot::hit_superblock);
            self.site.disks.settle();
        }
        let verified = self.site.metadata.verify();
        verified.map_err(|why| Violation(format!("the metadata and the bucket disagree: {why}")))?;
        #[cfg(feature = "planted-bugs")]
        crate::aborted::check(&self.bucket.store.objects())?;
        if bare {
            // What was on its way to the bucket lands: a snapshot that comes after a rebuild has the next start refused, rightly.
            let until = self.world.mono().plus(LANDING);
            let _nothing_left = self.world.run_until(LANDING_POLLS, || self.world.mono() >= until);
            let rebuilt = self.site.rebuild(self.rot.next());
            rebuilt.map_err(|why| Violation(format!("the metadata cannot be made anew: {why}")))?;
            self.rebuilt = true;
        }
        let life = self.start_in_calm("the last start")?;
        let read = Rc::new(Cell::new(0));
        let partitions = self.scene.partitions(TopicLife::Live);
        for (partition, n) in partitions.iter().copied().zip(0x500..) {
            let (mut reader, read) = (Reader(Client::new(&self.scene, "last reader", self.stream(n))), read.clone());
            let task = async move {
                let start = reader.read_all(partition).await;
                let mut model = reader.0.scene.model.borrow_mut();
                let end = model.floor(partition);
                model.complete(partition, start, end);
                read.set(read.get() + 1);
            };
            self.scene.runtime.spawn(Queue::Hot, "last reader", Box::pin(task));
        }
        let gone = self.scene.partitions(TopicLife::Gone);
        for (partition, n) in gone.iter().copied().zip(0x600..) {
            let (mut reader, read) = (Reader(Client::new(&self.scene, "last reader", self.stream(n))), read.clone());
            let task = async move {
                // Deleted stays deleted: whatever is answered is judged.
                while reader.fetch(partition, Offset(0), 8_000, Duration::ZERO).await == Got::Again {}
                read.set(read.get() + 1);
            };
            self.scene.runtime.spawn(Queue::Hot, "last reader", Box::pin(task));
        }
        self.phase(&life, "reading all back", |_| read.get() == partitions.len() + gone.len())?;
        Ok(())
    }

    fn report(&self) -> Report {
        let objects = self.bucket.store.objects();
        for (key, content) in &objects {
            self.world
                .note(u64::from(crc32c::crc32c(key.as_str().as_bytes())) << 32 | u64::from(crc32c::crc32c(content)));
        }
        self.world.note(self.site.disks.digest());
        let model = self.scene.model.borrow();
        Report {
            digest: self.world.digest(),
            polls: self.world.polls(),
            starts: self.site.starts,
            acknowledged: model.acknowledged,
            read: model.read,
            offset_commits: self.scene.commits.get(),
            topics: self.scene.topics.borrow().len(),
            topics_deleted: self.scene.deletions.get(),
            store_gets: self.bucket.gets.get(),
            objects: objects.len(),
            alterations: self.scene.alterations.get(),
            session_fetches: self.scene.sessions.get(),
            look_ups: self.scene.look_ups.get(),
            moves: self.scene.moves.get(),
            figures: 0,
            compacted: Default::default(),
            manifests: [0; 3],
            cleaned: 0,
            thinned: model.thinned,
            passes: model.passes,
            refusals: self.site.refusals,
            rebuilt: self.rebuilt,
            store_deletes: self.bucket.deletes.get(),
            virtual_seconds: self.world.mono().0 / 1_000_000_000,
        }
    }
}

fn draw_shape(random: &mut Stream, narrow: &mut Stream) -> Shape {
    let shards = 1 + random.below(u64::from(MOST_SHARDS)) as u16;
    let ring_bytes = RINGS_BYTES[random.below(RINGS_BYTES.len() as u64) as usize];
    Shape { shards, ring_bytes, narrow: narrow.one_in(4) }
}
