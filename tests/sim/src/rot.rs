//! Damage to what a disk holds: bits that rot, blocks that another write hit, writes that landed elsewhere.
//!
//! Only what the log promises to survive, or to refuse, stays until the next start: one superblock of the two; room that nothing
//! acknowledged lies in; and acknowledged data of which the log itself can tell that it was. What is left is told by the bytes that the
//! disk should hold, read here without the log's own judgement.

use std::{ops::Range, rc::Rc};

use futures_lite::future::block_on;
use thalweg_shards::runtime::seeded::Stream;
use thalweg_wal::{
    Device, LogExtent, Lsn, Ring,
    device::{MemoryDevice, SimulatedDevice},
    format::{BLOCK, ENTRY_LEN, GroupHeader, SUPERBLOCKS, Superblock},
    inspect,
};

const SLOT: usize = BLOCK as usize;
const RING: usize = SUPERBLOCKS as usize * SLOT;
/// Where most bits of a superblock rot: in what it says.
const SUPERBLOCK: u64 = 148;

/// What was hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harm {
    /// Nothing that a start may refuse.
    Hidden,
    /// Acknowledged data: a start is refused, or does not need it.
    Acknowledged,
}

/// Hits a superblock: a bit of it, or all of it by a write that was meant for another place.
pub(crate) fn hit_superblock(device: &SimulatedDevice, random: &mut Stream) {
    let generation = |slot: usize| {
        let block = &device.peek(RING)[slot * SLOT..][..SLOT];
        Superblock::decode(block).map_or(0, |superblock| superblock.generation)
    };
    let newest = usize::from(generation(1) > generation(0));
    // Mostly the one that counts.
    let slot = (if random.one_in(4) { 1 - newest } else { newest }) * SLOT;
    if random.one_in(2) {
        let bit = if random.one_in(4) { random.below(8 * BLOCK) } else { random.below(8 * SUPERBLOCK) } as usize;
        return device.change(|bytes| bytes[slot + bit / 8] ^= 1 << (bit % 8));
    }
    let from = block_of_ring(device, random);
    device.change(|bytes| bytes.copy_within(from..from + SLOT, slot));
}

/// Hits the ring: a bit, or a block by a write that was meant for another place.
pub(crate) fn hit_ring(device: &SimulatedDevice, random: &mut Stream) {
    let (to, bit) = (block_of_ring(device, random), random.below(8 * BLOCK) as usize);
    if random.one_in(2) {
        return device.change(|bytes| bytes[to + bit / 8] ^= 1 << (bit % 8));
    }
    let from = block_of_ring(device, random);
    device.change(|bytes| bytes.copy_within(from..from + SLOT, to));
}

fn block_of_ring(device: &SimulatedDevice, random: &mut Stream) -> usize {
    RING + random.below(device.len() / BLOCK - SUPERBLOCKS) as usize * SLOT
}

/// Before a start: undoes what no log could survive or notice. Says what is left.
pub(crate) fn settle(device: &SimulatedDevice) -> Harm {
    let Some((found, sound)) = device.harmed() else { return Harm::Hidden };
    let slots: [Range<usize>; 2] = [0..SLOT, SLOT..2 * SLOT];
    let mut hit = slots.clone().map(|slot| found[slot.clone()] != sound[slot]);
    for n in 0..2 {
        let other_serves = !hit[1 - n] && Superblock::decode(&sound[slots[1 - n].clone()]).is_ok();
        if hit[n] && !other_serves {
            device.heal(slots[n].clone());
            hit[n] = false;
        }
    }
    let ring = RING..found.len();
    let noticed = match noticed(&found, &sound) {
        // Not two things at once.
        _ if hit != [false; 2] => Some(Harm::Hidden).filter(|_| found[ring.clone()] == sound[ring.clone()]),
        noticed => noticed,
    };
    if noticed.is_none() {
        device.heal(ring);
    }
    noticed.unwrap_or(Harm::Hidden)
}

struct Group {
    lsn: Lsn,
    durable: Lsn,
    whole: bool,
}

/// The log on a disk with these bytes, if there is one.
#[expect(clippy::disallowed_methods, reason = "a disk in memory answers at once")]
pub(crate) fn log_on(bytes: Vec<u8>) -> Option<LogExtent> {
    block_on(inspect(Rc::new(MemoryDevice::of_bytes(bytes)))).ok()?.log.ok()
}

/// What the next start finds of the ring's damage; `None` when acknowledged data is hit and nothing tells that it was acknowledged.
fn noticed(found: &[u8], sound: &[u8]) -> Option<Harm> {
    let log = log_on(sound.to_vec())?;
    let ring = Ring::of_device(sound.len() as u64)?;
    let (mut groups, mut lsn) = (Vec::new(), log.newest.trim);
    while lsn < log.end {
        let at = ring.device_offset(lsn) as usize;
        let header = GroupHeader::decode(&sound[at..]).ok()?;
        let end = at + header.table as usize + header.entries as usize * ENTRY_LEN;
        groups.push(Group { lsn, durable: header.durable, whole: found[at..end] == sound[at..end] });
        lsn.0 += u64::from(header.length);
    }
    let Some(first) = groups.iter().find(|group| !group.whole).map(|group| group.lsn) else {
        return Some(Harm::Hidden);
    };
    let floor = (0..2).filter_map(|n| Superblock::decode(&sound[n * SLOT..(n + 1) * SLOT]).ok());
    let told = floor.map(|superblock| superblock.durable).max()?.max(log.newest.start) > first;
    let last = Lsn(first.0 + u64::from(log.newest.max_in_flight_bytes));
    let mut later = groups.iter().filter(|group| group.lsn > first && group.lsn <= last && group.whole);
    (told || later.any(|group| group.durable > first)).then_some(Harm::Acknowledged)
}
