//! Seeded lives of a log on a disk with a volatile cache: append, complete out of order, trim, crash, recover.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{
    GroupId, IoBuf, PlantedBugs,
    device::{LocalBoxFuture, Operation, SimulatedDevice, SimulatedFaults},
};

type Write = LocalBoxFuture<'static, (std::io::Result<()>, IoBuf)>;

/// Which operations may complete.
#[derive(Default)]
struct Gate {
    /// All do, as during an opening.
    open: Cell<bool>,
    next: Cell<u64>,
    released: RefCell<BTreeSet<u64>>,
}

impl Gate {
    fn delay(self: &Rc<Gate>) -> LocalBoxFuture<'static, ()> {
        let (gate, ticket) = (self.clone(), self.next.get());
        self.next.set(ticket + 1);
        Box::pin(poll_fn(move |_| {
            if gate.open.get() || gate.released.borrow().contains(&ticket) { Poll::Ready(()) } else { Poll::Pending }
        }))
    }
}

enum Pending {
    Group(GroupId),
    Superblock,
    Zeros,
}

struct World {
    random: u64,
    gate: Rc<Gate>,
    device: SimulatedDevice,
    config: LogConfig,
    /// What each offset holds since the last recovery, and what was appended after.
    alive: BTreeMap<i64, Vec<u8>>,
    /// All up to here was acknowledged; -1 when nothing was.
    acknowledged: i64,
    /// All up to here may be gone, for it was trimmed.
    resolved: i64,
}

impl World {
    fn new(seed: u64, faults: SimulatedFaults, config: LogConfig) -> World {
        let gate = Rc::new(Gate::default());
        gate.open.set(true);
        let delays = gate.clone();
        let delay = Rc::new(move |_: Operation| delays.delay());
        let device = SimulatedDevice::new(160 << 10, seed, faults, delay);
        block_on(create(Rc::new(device.clone()), identity(), config, seed)).expect("created");
        World { random: seed, gate, device, config, alive: BTreeMap::new(), acknowledged: -1, resolved: -1 }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Opens, and checks what is there against what must be.
    fn recover(&mut self) -> Result<(Log, i64), String> {
        self.gate.open.set(true);
        let (random, device) = (self.roll(u64::MAX), Rc::new(self.device.clone()));
        let recovered = block_on(open(device.clone(), identity(), self.config, random, false))
            .map_err(|e| format!("refused: {e}"))?;
        let mut found = BTreeMap::new();
        for batch in &recovered.batches {
            let read = crate::read(device.clone(), recovered.log.ring(), batch.lsn, batch.head.size_bytes());
            let body = block_on(read).map_err(|e| e.to_string())?[HEAD_LEN..].to_vec();
            let offset = batch.head.base_offset().0;
            if found.last_key_value().is_some_and(|(last, _)| last + 1 != offset) {
                return Err(format!("offset {offset} does not follow"));
            }
            if self.alive.get(&offset) != Some(&body) {
                return Err(format!("offset {offset} is not what was appended"));
            }
            found.insert(offset, body);
        }
        let first = found.first_key_value().map_or(i64::MAX, |(first, _)| *first);
        let last = found.last_key_value().map_or(self.resolved, |(last, _)| *last);
        if last < self.acknowledged || (first > self.resolved + 1 && last > self.resolved) {
            return Err(format!("offsets {first} to {last} are left of those up to {}", self.acknowledged));
        }
        self.acknowledged = last;
        self.alive = found;
        self.gate.open.set(false);
        Ok((recovered.log, last + 1))
    }

    fn live(&mut self, life: u8) -> Result<(), String> {
        let (mut log, mut next) = self.recover()?;
        let mut pending: Vec<(Pending, u64, Write)> = Vec::new();
        let mut unacknowledged: BTreeMap<Lsn, i64> = BTreeMap::new();
        for _ in 0..self.roll(40) {
            match self.roll(8) {
                0..=3 => {
                    let size = [10, 10, 3000, 5000, 9000][self.roll(5) as usize];
                    let mut body = vec![life; size];
                    body[..8].copy_from_slice(&next.to_le_bytes());
                    let Ok(room) = log.reserve((size + HEAD_LEN) as u32) else { continue };
                    if !log.would_fit((size + HEAD_LEN) as u32) {
                        log.release(room);
                    } else {
                        log.push(room, partition(0), &batch(next, next, &body), &body);
                        self.alive.insert(next, body);
                        next += 1;
                    }
                    if let Some(write) = log.seal(Mono(0)) {
                        unacknowledged.insert(write.end, next - 1);
                        self.start(&mut pending, Pending::Group(write.id), write.at, write.buf);
                    }
                }
                4 => {
                    // Whatever comes of the superblock, from now on it may count.
                    self.resolved = self.acknowledged;
                    if let Some(write) = log.trim(log.durable()) {
                        self.start(&mut pending, Pending::Superblock, write.at, write.buf);
                    }
                }
                5 => {
                    if let Some(write) = log.zero_ahead(8192) {
                        self.start(&mut pending, Pending::Zeros, write.at, write.buf);
                    } else if let Some(write) = log.marker(Mono(u64::MAX)) {
                        self.start(&mut pending, Pending::Group(write.id), write.at, write.buf);
                    }
                }
                _ if pending.is_empty() => {}
                _ => self.complete(&mut log, &mut pending, &mut unacknowledged),
            }
        }
        let crash = self.roll(4) > 0;
        self.device = if crash { self.device.crash() } else { self.device.kill() };
        Ok(())
    }

    fn start(&self, pending: &mut Vec<(Pending, u64, Write)>, what: Pending, at: u64, buf: IoBuf) {
        let ticket = self.gate.next.get();
        let mut write = self.device.write(at, buf);
        assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "the gate is shut");
        pending.push((what, ticket, write));
    }

    fn complete(
        &mut self,
        log: &mut Log,
        pending: &mut Vec<(Pending, u64, Write)>,
        unacknowledged: &mut BTreeMap<Lsn, i64>,
    ) {
        let i = self.roll(pending.len() as u64) as usize;
        let (what, ticket, mut write) = pending.swap_remove(i);
        self.gate.released.borrow_mut().insert(ticket);
        let Poll::Ready((r, _)) = write.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the gate is open");
        };
        match what {
            Pending::Group(id) => {
                let durable = log.written(id, r).expect("no errors here");
                let rest = unacknowledged.split_off(&Lsn(durable.0 + 1));
                let done = std::mem::replace(unacknowledged, rest);
                self.acknowledged = done.last_key_value().map_or(self.acknowledged, |(_, offset)| *offset);
            }
            Pending::Superblock => {
                if let Some(next) = log.superblock_written(r).expect("no errors here") {
                    self.start(pending, Pending::Superblock, next.at, next.buf);
                }
            }
            Pending::Zeros => log.zeroed(r).expect("no errors here"),
        }
    }
}

/// Ten lives; the digest of the disk, or what went wrong.
fn run(seed: u64, faults: SimulatedFaults, config: LogConfig) -> Result<u32, String> {
    let mut world = World::new(seed, faults, config);
    for life in 0..10 {
        world.live(life).map_err(|e| format!("seed {seed}, life {life}: {e}"))?;
    }
    Ok(world.device.digest())
}

fn first_failure(faults: SimulatedFaults, config: LogConfig) -> Option<String> {
    (0..300).find_map(|seed| run(seed, faults, config).err())
}

#[test]
fn acknowledged_batches_survive_any_crash() {
    assert_eq!(first_failure(SimulatedFaults::default(), small()), None);
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in [1, 2, 3] {
        let digest = || run(seed, SimulatedFaults::default(), small());
        assert_eq!(digest(), digest());
    }
}

#[test]
fn a_disk_that_says_ok_too_early_is_found() {
    let early = SimulatedFaults { ok_before_durable: true, ..SimulatedFaults::default() };
    assert!(first_failure(early, small()).is_some());
}

#[test]
fn a_log_without_incarnation_and_chain_is_found() {
    let planted = PlantedBugs { no_incarnation: true, no_chain: true };
    assert!(first_failure(SimulatedFaults::default(), LogConfig { planted, ..small() }).is_some());
}
