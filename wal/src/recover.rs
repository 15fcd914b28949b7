//! Creating a slice, and opening it: recovery.
//!
//! Opening reads the log, cuts a torn tail or refuses damage, and makes the new incarnation durable in both superblocks
//! before the first append. Both, so that a superblock that rots later never takes the incarnation of sound groups
//! with it.

use std::rc::Rc;

use thalweg_record::Mono;

use crate::{
    Damage, Device, GroupFault, Incarnation, Log, LogConfig, Lsn, OpenError, RecoveredBatch, Ring,
    format::{BLOCK, SUPERBLOCKS, SliceIdentity, Superblock, SuperblockFault},
    log::{Resume, Superblocks, superblock_block},
    scan::{Scan, scan},
};

/// What recovery found and did.
#[derive(Clone, Debug)]
pub struct RecoveryReport {
    /// The opening that has just begun.
    pub incarnation: Incarnation,
    /// Where the log begins.
    pub trim: Lsn,
    /// Where it ends, and appends go on.
    pub head: Lsn,
    /// Groups read.
    pub groups: u64,
    /// The slice had been closed in order.
    pub was_clean: bool,
    /// Why the log ends at `head`. Usually there is simply no next group.
    pub tail: GroupFault,
    /// Acknowledged data that is lost, when the caller accepted that.
    pub lost: Option<Damage>,
}

/// An opened slice.
pub struct Recovered {
    /// The log, ready for appends.
    pub log: Log,
    /// All batches from the trim point to the end, in log order.
    pub batches: Vec<RecoveredBatch>,
    /// What was found.
    pub report: RecoveryReport,
}

/// Writes the first superblocks of a new, empty slice.
///
/// # Errors
/// [`OpenError::Exists`] when a slice is there, whoever's it is; [`OpenError::TooSmall`]; I/O.
pub async fn create(
    device: Rc<dyn Device>,
    identity: SliceIdentity,
    config: LogConfig,
    random: u64,
) -> Result<(), OpenError> {
    let config = config.within_ranges();
    let ring = sized_ring(&*device, &config)?;
    match read_superblocks(&device).await? {
        [
            Err(SuperblockFault::Blank | SuperblockFault::Damaged),
            Err(SuperblockFault::Blank | SuperblockFault::Damaged),
        ] => {}
        _ => return Err(OpenError::Exists),
    }
    let first = Superblock {
        generation: 1,
        identity,
        capacity: ring.capacity_bytes(),
        incarnation: Incarnation { opens: 0, random },
        start: Lsn(0),
        trim: Lsn(0),
        trim_crc: 0,
        durable: Lsn(0),
        zeroed: Lsn(if device.wants_zeroing() { 0 } else { ring.capacity_bytes() }),
        max_group_bytes: config.max_group_bytes,
        max_in_flight_bytes: config.max_in_flight_bytes,
        clean: true,
    };
    write_both(&device, first).await.map(|_| ())
}

/// Opens a slice, and takes it over: reads the log and makes a new incarnation durable.
///
/// `random` are fresh random bits. With `accept_loss`, damaged acknowledged data and all that follows it is cut off
/// instead of refused.
///
/// # Errors
/// [`OpenError`]. Nothing was changed, unless the error says that a write failed.
pub async fn open(
    device: Rc<dyn Device>,
    expected: SliceIdentity,
    config: LogConfig,
    random: u64,
    accept_loss: bool,
) -> Result<Recovered, OpenError> {
    let config = config.within_ranges();
    let ring = sized_ring(&*device, &config)?;
    let (newest, floor) = newest_superblock(&read_superblocks(&device).await?)?;
    check_identity(&newest.identity, &expected)?;
    if newest.capacity != ring.capacity_bytes() {
        return Err(OpenError::Resized { created: newest.capacity, now: ring.capacity_bytes() });
    }
    let mut found = scan(device.clone(), &newest, floor, &config).await.map_err(OpenError::io("read"))?;
    let lost = found.damage.take();
    if let (Some(damage), false) = (&lost, accept_loss) {
        return Err(OpenError::Damaged(damage.clone()));
    }
    let next = Superblock {
        generation: newest.generation + 1,
        incarnation: Incarnation { opens: newest.incarnation.opens + 1, random },
        start: found.end.lsn,
        durable: found.end.lsn,
        max_group_bytes: config.max_group_bytes,
        max_in_flight_bytes: config.max_in_flight_bytes,
        clean: false,
        ..newest
    };
    let written = write_both(&device, next).await?;
    take_over(device, ring, config, written, found, lost, newest.clean).await
}

async fn take_over(
    device: Rc<dyn Device>,
    ring: Ring,
    config: LogConfig,
    written: Superblock,
    found: Scan,
    lost: Option<Damage>,
    was_clean: bool,
) -> Result<Recovered, OpenError> {
    let Scan { batches, links, end, data_end, confirmed, groups, tail, .. } = found;
    let superblocks = Superblocks::new(written);
    let mut log =
        Log::resume(device.clone(), ring, config, Resume { head: end, links, data_end, confirmed, superblocks });
    if let Some(write) = log.leave_short_end(Mono::default()).map_err(|_| OpenError::TooFull)? {
        let (r, _) = device.write(write.at, write.buf).await;
        r.map_err(OpenError::io("write"))?;
        log.written(write.id, Ok(())).expect("nothing has poisoned a log just opened");
    }
    let report = RecoveryReport {
        incarnation: written.incarnation,
        trim: written.trim,
        head: log.head(),
        groups,
        was_clean,
        tail,
        lost,
    };
    Ok(Recovered { log, batches, report })
}

fn sized_ring(device: &dyn Device, config: &LogConfig) -> Result<Ring, OpenError> {
    let needed = config.min_device_bytes();
    let ring = Ring::of_device(device.len()).filter(|_| device.len() >= needed);
    ring.ok_or(OpenError::TooSmall { len: device.len(), needed })
}

pub(crate) type Slots = [Result<Superblock, SuperblockFault>; 2];

/// What the two slots hold.
pub(crate) async fn read_superblocks(device: &Rc<dyn Device>) -> Result<Slots, OpenError> {
    let len = SUPERBLOCKS * BLOCK;
    let bytes = device.read(0, len as usize).await.map_err(OpenError::io("read the superblocks of"))?;
    let (first, second) = bytes.split_at(BLOCK as usize);
    Ok([Superblock::decode(first), Superblock::decode(second)])
}

/// The newest sound superblock, and how far the log was durable at least.
pub(crate) fn newest_superblock(slots: &Slots) -> Result<(Superblock, Lsn), OpenError> {
    // A newer broker may have begun to convert the slice: an older superblock beside its own does not count.
    if let Some(found) = slots.iter().find_map(|slot| match slot {
        Err(SuperblockFault::Version(found)) => Some(*found),
        _ => None,
    }) {
        return Err(OpenError::Version { found });
    }
    let sound = || slots.iter().filter_map(|slot| slot.ok());
    match sound().max_by_key(|superblock| superblock.generation) {
        Some(newest) => {
            let floor = sound().map(|superblock| superblock.durable).max().unwrap_or_default();
            Ok((newest, floor))
        }
        None if slots.iter().all(|slot| *slot == Err(SuperblockFault::Blank)) => Err(OpenError::Blank),
        None => Err(OpenError::NoSuperblock),
    }
}

fn check_identity(found: &SliceIdentity, expected: &SliceIdentity) -> Result<(), OpenError> {
    let hex = |id: &[u8; 16]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let fields = [
        ("cluster", hex(&found.cluster), hex(&expected.cluster)),
        ("node", found.node.to_string(), expected.node.to_string()),
        ("shard", found.shard.to_string(), expected.shard.to_string()),
        ("slice", hex(&found.slice), hex(&expected.slice)),
    ];
    match fields.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(()),
        Some((what, found, expected)) => Err(OpenError::Foreign { what, found, expected }),
    }
}

/// Writes a superblock into its slot and, one generation later, into the other. Returns the later one.
async fn write_both(device: &Rc<dyn Device>, first: Superblock) -> Result<Superblock, OpenError> {
    let second = Superblock { generation: first.generation + 1, ..first };
    for superblock in [first, second] {
        let block = superblock_block(&**device, &superblock);
        let (r, _) = device.write(superblock.device_offset(), block).await;
        r.map_err(OpenError::io("write the superblocks of"))?;
    }
    Ok(second)
}
