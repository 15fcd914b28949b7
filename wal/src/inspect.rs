//! Looks at a slice without changing it: `thalweg wal inspect`.

use std::{collections::BTreeMap, fmt, rc::Rc};

use thalweg_record::{Offset, PartitionId};

use crate::{
    Damage, Device, GroupFault, LogConfig, Lsn, OpenError, Ring,
    format::{FORMAT_VERSION, Superblock, SuperblockFault},
    recover::{Slots, newest_superblock, read_superblocks},
    scan::scan,
};

/// What a slice holds of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionExtent {
    /// First offset in the slice.
    pub first: Offset,
    /// Last offset in the slice.
    pub last: Offset,
    /// Number of batches.
    pub batches: u64,
    /// Bytes of batches.
    pub bytes: u64,
}

/// What the log of a slice holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogExtent {
    /// The superblock that counts.
    pub newest: Superblock,
    /// LSN after the last group that can be trusted.
    pub end: Lsn,
    /// Number of groups from the trim point to the end.
    pub groups: u64,
    /// The partitions.
    pub partitions: BTreeMap<PartitionId, PartitionExtent>,
    /// Why the log ends there. Usually there is simply no next group.
    pub tail: GroupFault,
    /// Acknowledged data that cannot be read.
    pub damage: Option<Damage>,
}

/// What [`inspect`] found; [`fmt::Display`] tells it to a person.
#[derive(Clone, Debug)]
pub struct InspectReport {
    /// Length of the device in bytes.
    pub device_bytes: u64,
    /// The two superblock slots.
    pub slots: [Result<Superblock, SuperblockFault>; 2],
    /// The log; or, in words, why it cannot be read.
    pub log: Result<LogExtent, String>,
}

/// Reads superblocks and log. Changes nothing, whatever it finds.
///
/// # Errors
/// [`OpenError::Io`] when the device fails, [`OpenError::TooSmall`] when it is too short for a slice. All else is part of
/// the report.
pub async fn inspect(device: Rc<dyn Device>) -> Result<InspectReport, OpenError> {
    let device_bytes = device.len();
    let config = LogConfig::default().within_ranges();
    let Some(ring) = Ring::of_device(device_bytes) else {
        return Err(OpenError::TooSmall { len: device_bytes, needed: config.min_device_bytes() });
    };
    let slots = read_superblocks(&device).await?;
    let log = extent(device, ring, &slots, &config).await?;
    Ok(InspectReport { device_bytes, slots, log })
}

async fn extent(
    device: Rc<dyn Device>,
    ring: Ring,
    slots: &Slots,
    config: &LogConfig,
) -> Result<Result<LogExtent, String>, OpenError> {
    let (newest, floor) = match newest_superblock(slots) {
        Ok(found) => found,
        Err(e) => return Ok(Err(e.to_string())),
    };
    if newest.capacity != ring.capacity_bytes() {
        let resized = OpenError::Resized { created: newest.capacity, now: ring.capacity_bytes() };
        return Ok(Err(resized.to_string()));
    }
    let found = scan(device, &newest, floor, config).await.map_err(OpenError::io("read"))?;
    let mut partitions = BTreeMap::new();
    for batch in &found.batches {
        let (base, last) = (batch.head.base_offset(), batch.head.last_offset());
        let fresh = PartitionExtent { first: base, last, batches: 0, bytes: 0 };
        let extent: &mut PartitionExtent = partitions.entry(batch.partition).or_insert(fresh);
        extent.first = extent.first.min(base);
        extent.last = extent.last.max(last);
        extent.batches += 1;
        extent.bytes += batch.head.size_bytes() as u64;
    }
    let (end, groups, tail, damage) = (found.end.lsn, found.groups, found.tail, found.damage);
    Ok(Ok(LogExtent { newest, end, groups, partitions, tail, damage }))
}

impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "WAL slice of {} bytes, format {FORMAT_VERSION}", self.device_bytes)?;
        for (slot, found) in self.slots.iter().enumerate() {
            match found {
                Ok(superblock) => writeln!(f, "superblock {slot}: {superblock}")?,
                Err(SuperblockFault::Blank) => writeln!(f, "superblock {slot}: blank")?,
                Err(SuperblockFault::Damaged) => writeln!(f, "superblock {slot}: damaged, or not a superblock")?,
                Err(SuperblockFault::Version(found)) => writeln!(f, "superblock {slot}: format version {found}")?,
            }
        }
        match &self.log {
            Ok(log) => log.fmt(f),
            Err(why) => writeln!(f, "log: {why}"),
        }
    }
}

impl fmt::Display for LogExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = &self.newest.identity;
        write!(f, "owner: node {} shard {}, cluster ", identity.node, identity.shard)?;
        hex(f, &identity.cluster)?;
        f.write_str(", slice ")?;
        hex(f, &identity.slice)?;
        let (trim, end) = (self.newest.trim, self.end);
        writeln!(
            f,
            "\nlog: LSN {trim} to {end}, {} of {} bytes, {} groups",
            end.0 - trim.0,
            self.newest.capacity,
            self.groups
        )?;
        for (partition, extent) in &self.partitions {
            writeln!(
                f,
                "  {partition}: offsets {} to {}, {} batches, {} bytes",
                extent.first, extent.last, extent.batches, extent.bytes
            )?;
        }
        match (&self.damage, self.newest.clean) {
            (Some(damage), _) => writeln!(f, "DAMAGED: {damage}"),
            (None, true) => writeln!(f, "closed in order{}", if trim == end { ", empty" } else { "" }),
            (None, false) => writeln!(f, "not closed in order; nothing acknowledged is missing ({})", self.tail),
        }
    }
}

impl fmt::Display for Superblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "generation {}, opening {}, trimmed to LSN {}, durable to LSN {}{}",
            self.generation,
            self.incarnation.opens,
            self.trim,
            self.durable,
            if self.clean { ", closed in order" } else { "" }
        )
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8; 16]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}
