//! A disk with a volatile cache, for the simulation: what is not durable may be lost, torn or reordered at a crash.
//!
//! Deterministic: every choice comes from the seed, and time from the caller. A write that is under way lies in the
//! disk's cache; its future completes after a delay, and only then are its bytes durable. A crash keeps any subset of the
//! cached 512-byte sectors, in any order of the writes.
//!
//! What is durable may rot, and a write may land elsewhere. The disk remembers what it would hold without that, so that a
//! simulation can tell what was hit, and undo it.

use std::{cell::RefCell, io, rc::Rc};

use bytes::Bytes;

use super::{
    Device, IoBuf, LocalBoxFuture,
    memory::{aligned, range},
};

/// What a disk tears writes into.
const SECTOR: usize = 512;
const BLOCK: usize = crate::format::BLOCK as usize;

/// What the disk is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Read `len` bytes at `at`.
    Read {
        /// Device offset in bytes.
        at: u64,
        /// Number of bytes.
        len: usize,
    },
    /// Write `len` bytes at `at`.
    Write {
        /// Device offset in bytes.
        at: u64,
        /// Number of bytes.
        len: usize,
    },
}

/// How the disk fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SimulatedFaults {
    /// Of a million writes, how many fail with EIO. What they leave behind is any part of them.
    pub write_errors_per_million: u32,
    /// Of a million reads, how many fail with EIO.
    pub read_errors_per_million: u32,
    /// Of a million writes, how many say `Ok` and land elsewhere, on whole blocks behind the first two.
    pub misdirected_per_million: u32,
    /// Of a million reads, how many give one bit that is not on the disk.
    pub flipped_reads_per_million: u32,
    /// A planted bug: a write returns `Ok` while its bytes are still volatile, as a descriptor without O_DSYNC does.
    pub ok_before_durable: bool,
}

/// How long an operation takes: a future that the simulation completes in virtual time.
pub type Delay = Rc<dyn Fn(Operation) -> LocalBoxFuture<'static, ()>>;

struct Cached {
    id: u64,
    at: usize,
    bytes: Bytes,
    acknowledged: bool,
}

struct Disk {
    durable: Vec<u8>,
    /// What would be durable without rot and writes that landed elsewhere; none when that is the same.
    sound: Option<Vec<u8>>,
    cache: Vec<Cached>,
    faults: SimulatedFaults,
    random: u64,
    /// Rot has a stream of its own.
    rot: u64,
    next_id: u64,
    /// Counts crashes. A handle from before the last one is dead.
    power: u64,
}

/// One handle to the disk. Clones share it; a crash leaves them all dead.
#[derive(Clone)]
pub struct SimulatedDevice {
    disk: Rc<RefCell<Disk>>,
    delay: Delay,
    power: u64,
}

impl SimulatedDevice {
    /// A zeroed disk of `len` bytes, whole blocks.
    pub fn new(len: u64, seed: u64, faults: SimulatedFaults, delay: Delay) -> SimulatedDevice {
        let durable = vec![0; usize::try_from(len).expect("a simulated disk fits into memory")];
        let (cache, rot) = (Vec::new(), seed ^ 0x5eed);
        let disk = Disk { durable, sound: None, cache, faults, random: seed, rot, next_id: 0, power: 0 };
        SimulatedDevice { disk: Rc::new(RefCell::new(disk)), delay, power: 0 }
    }

    /// Power is lost and comes back: any part of what was volatile survives. Every handle so far is dead, its pending
    /// operations too; the returned one sees the disk as it is now.
    pub fn crash(&self) -> SimulatedDevice {
        self.disk.borrow_mut().crash();
        self.revived()
    }

    /// The process dies and the machine lives: the disk completes what it was given. Handles as in
    /// [`SimulatedDevice::crash`].
    pub fn kill(&self) -> SimulatedDevice {
        let mut disk = self.disk.borrow_mut();
        for write in std::mem::take(&mut disk.cache) {
            disk.land(write.at, &write.bytes);
        }
        disk.power += 1;
        drop(disk);
        self.revived()
    }

    fn revived(&self) -> SimulatedDevice {
        SimulatedDevice { power: self.disk.borrow().power, ..self.clone() }
    }

    /// Changes how the disk fails from now on.
    pub fn set_faults(&self, faults: SimulatedFaults) {
        self.disk.borrow_mut().faults = faults;
    }

    /// A CRC-32C over the durable bytes, for the digest of a run.
    pub fn digest(&self) -> u32 {
        crc32c::crc32c(&self.disk.borrow().durable)
    }

    /// The first `len` bytes as a reader sees them, at once.
    pub fn peek(&self, len: usize) -> Vec<u8> {
        self.disk.borrow().seen(0..len).to_vec()
    }

    /// Changes durable bytes behind the log's back.
    pub fn change(&self, f: impl FnOnce(&mut [u8])) {
        let mut disk = self.disk.borrow_mut();
        let Disk { durable, sound, .. } = &mut *disk;
        sound.get_or_insert_with(|| durable.clone());
        f(durable);
    }

    /// What is durable, and what would be without rot and writes that landed elsewhere; `None` when that is the same.
    pub fn harmed(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut disk = self.disk.borrow_mut();
        disk.sound = disk.sound.take().filter(|sound| *sound != disk.durable);
        disk.sound.clone().map(|sound| (disk.durable.clone(), sound))
    }

    /// Undoes rot and misdirected writes in a range of bytes.
    pub fn heal(&self, range: std::ops::Range<usize>) {
        let mut disk = self.disk.borrow_mut();
        let Disk { durable, sound, .. } = &mut *disk;
        if let Some(sound) = sound {
            durable[range.clone()].copy_from_slice(&sound[range]);
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.disk.borrow().power == self.power { Ok(()) } else { Err(eio("the power was lost")) }
    }

    /// Takes the write into the cache, or fails it.
    fn begin_write(&self, at: u64, bytes: &[u8]) -> io::Result<u64> {
        self.alive()?;
        let mut disk = self.disk.borrow_mut();
        let place = aligned(at, bytes.len(), disk.durable.len())?;
        let per_million = disk.faults.write_errors_per_million;
        if one_in_a_million(&mut disk.random, per_million) {
            disk.keep_part_of(place.start, bytes);
            return Err(eio("an injected write error"));
        }
        let id = disk.next_id;
        disk.next_id += 1;
        disk.cache.push(Cached { id, at: place.start, bytes: Bytes::copy_from_slice(bytes), acknowledged: false });
        Ok(id)
    }

    fn end_write(&self, id: u64) -> io::Result<()> {
        self.alive()?;
        let mut disk = self.disk.borrow_mut();
        disk.drain_some();
        let misdirected = disk.faults.misdirected_per_million;
        if disk.faults.ok_before_durable {
            disk.cache.iter_mut().filter(|write| write.id == id).for_each(|write| write.acknowledged = true);
        } else if one_in_a_million(&mut disk.rot, misdirected) {
            disk.misdirect(id);
        } else {
            disk.flush(id);
        }
        Ok(())
    }

    fn read_now(&self, at: u64, len: usize) -> io::Result<Bytes> {
        self.alive()?;
        let mut disk = self.disk.borrow_mut();
        let place = range(at, len, disk.durable.len())?;
        let per_million = disk.faults.read_errors_per_million;
        if one_in_a_million(&mut disk.random, per_million) {
            return Err(eio("an injected read error"));
        }
        let (bytes, flipped) = (disk.seen(place), disk.faults.flipped_reads_per_million);
        Ok(if one_in_a_million(&mut disk.rot, flipped) { disk.flipped(&bytes) } else { bytes })
    }
}

impl Disk {
    /// A write becomes durable.
    fn land(&mut self, at: usize, bytes: &[u8]) {
        let place = at..at + bytes.len();
        self.durable[place.clone()].copy_from_slice(bytes);
        if let Some(sound) = &mut self.sound {
            sound[place].copy_from_slice(bytes);
        }
    }

    /// A write becomes durable in another place than its own.
    fn misdirect(&mut self, id: u64) {
        let Some(i) = self.cache.iter().position(|write| write.id == id) else { return };
        let write = self.cache.remove(i);
        let (first, len) = (2 * BLOCK, write.bytes.len());
        let places = (self.durable.len() - first - len) / BLOCK + 1;
        let to = first + splitmix(&mut self.rot) as usize % places * BLOCK;
        let sound = self.sound.get_or_insert_with(|| self.durable.clone());
        sound[write.at..write.at + len].copy_from_slice(&write.bytes);
        self.durable[to..to + len].copy_from_slice(&write.bytes);
    }

    /// The same bytes but for one bit.
    fn flipped(&mut self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        let at = splitmix(&mut self.rot) as usize % (8 * bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at / 8) {
            *byte ^= 1 << (at % 8);
        }
        Bytes::from(bytes)
    }

    /// What a reader sees: the cache lies over the durable bytes.
    fn seen(&self, place: std::ops::Range<usize>) -> Bytes {
        let mut bytes = self.durable[place.clone()].to_vec();
        for write in &self.cache {
            let from = write.at.max(place.start);
            let to = (write.at + write.bytes.len()).min(place.end);
            if from < to {
                bytes[from - place.start..to - place.start]
                    .copy_from_slice(&write.bytes[from - write.at..to - write.at]);
            }
        }
        Bytes::from(bytes)
    }

    fn flush(&mut self, id: u64) {
        if let Some(i) = self.cache.iter().position(|write| write.id == id) {
            let write = self.cache.remove(i);
            self.land(write.at, &write.bytes);
        }
    }

    /// A disk that acknowledges early drains its cache now and then.
    fn drain_some(&mut self) {
        let early: Vec<u64> = self.cache.iter().filter(|write| write.acknowledged).map(|write| write.id).collect();
        for id in early {
            if splitmix(&mut self.random) % 4 == 0 {
                self.flush(id);
            }
        }
    }

    /// Some sectors of a write: none, all, a prefix, or any.
    fn keep_part_of(&mut self, at: usize, bytes: &[u8]) {
        let sectors = bytes.len() / SECTOR;
        let mode = splitmix(&mut self.random) % 4;
        let cut = (splitmix(&mut self.random) % (sectors as u64 + 1)) as usize;
        for sector in 0..sectors {
            let kept = match mode {
                0 => false,
                1 => true,
                2 => sector < cut,
                _ => splitmix(&mut self.random) % 2 == 0,
            };
            if kept {
                let from = sector * SECTOR;
                self.land(at + from, &bytes[from..from + SECTOR]);
            }
        }
    }

    fn crash(&mut self) {
        let mut cache = std::mem::take(&mut self.cache);
        while !cache.is_empty() {
            let write = cache.swap_remove((splitmix(&mut self.random) % cache.len() as u64) as usize);
            self.keep_part_of(write.at, &write.bytes);
        }
        self.power += 1;
    }
}

fn one_in_a_million(state: &mut u64, times: u32) -> bool {
    times > 0 && splitmix(state) % 1_000_000 < u64::from(times)
}

/// The next pseudo-random number (splitmix64).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn eio(why: &'static str) -> io::Error {
    io::Error::other(why)
}

impl Device for SimulatedDevice {
    fn len(&self) -> u64 {
        self.disk.borrow().durable.len() as u64
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        IoBuf::heap(blocks)
    }

    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        let this = self.clone();
        Box::pin(async move {
            let done = match this.begin_write(at, b.as_ref()) {
                Ok(id) => {
                    (this.delay)(Operation::Write { at, len: b.len() }).await;
                    this.end_write(id)
                }
                Err(e) => Err(e),
            };
            (done, b)
        })
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        let this = self.clone();
        Box::pin(async move {
            (this.delay)(Operation::Read { at, len }).await;
            this.read_now(at, len)
        })
    }
}
