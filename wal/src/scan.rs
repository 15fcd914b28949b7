//! Reads the log from the trim point to the last group that can be trusted, and judges what follows.
//!
//! Read-only: shared by recovery and `inspect`.

use std::{collections::BTreeMap, io, rc::Rc};

use bytes::Bytes;
use thalweg_record::{BatchHead, HEAD_LEN, Offset, PartitionId};

use crate::{
    Damage, Device, GroupFault, Incarnation, LogConfig, Lsn, Ring,
    format::{
        BLOCK, ENTRY_LEN, Entry, GROUP_HEADER_LEN, GroupHeader, GroupKind, HeaderFault, Superblock, group_crc_finish,
        group_crc_start,
    },
    log::Link,
    readahead::Readahead,
};

/// A batch that recovery found. Its bytes are read with [`crate::read`].
#[derive(Clone, Copy, Debug)]
pub struct RecoveredBatch {
    /// The partition.
    pub partition: PartitionId,
    /// LSN of the batch's first byte.
    pub lsn: Lsn,
    /// The batch's first 61 bytes; they hold its size.
    pub head: BatchHead,
}

/// What the log holds.
pub(crate) struct Scan {
    pub batches: Vec<RecoveredBatch>,
    pub links: Vec<Link>,
    pub end: Link,
    pub data_end: Lsn,
    pub confirmed: Lsn,
    pub groups: u64,
    /// Why the log ends where it does.
    pub tail: GroupFault,
    /// Set when what follows the end had been acknowledged.
    pub damage: Option<Damage>,
}

/// The log of `newest`, of which at least all below `floor` was durable.
pub(crate) async fn scan(
    device: Rc<dyn Device>,
    newest: &Superblock,
    floor: Lsn,
    config: &LogConfig,
) -> io::Result<Scan> {
    let ring = Ring::of_device(device.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut window = Readahead::new(device, ring, newest.trim);
    let mut scanner = Scanner::new(ring, newest, floor, config);
    let done = scanner.run(&mut window).await;
    window.finish().await;
    done?;
    Ok(scanner.found)
}

struct Scanner<'a> {
    ring: Ring,
    newest: &'a Superblock,
    floor: Lsn,
    config: &'a LogConfig,
    last_opens: u64,
    found: Scan,
}

/// A group that cannot be trusted; its entries when the table still can.
struct Bad(GroupFault, Vec<Entry>);

impl From<GroupFault> for Bad {
    fn from(fault: GroupFault) -> Bad {
        Bad(fault, Vec::new())
    }
}

impl<'a> Scanner<'a> {
    fn new(ring: Ring, newest: &'a Superblock, floor: Lsn, config: &'a LogConfig) -> Scanner<'a> {
        let end = Link { lsn: newest.trim, crc: newest.trim_crc };
        let found = Scan {
            batches: Vec::new(),
            links: Vec::new(),
            end,
            data_end: end.lsn,
            confirmed: end.lsn,
            groups: 0,
            tail: GroupFault::NoHeader,
            damage: None,
        };
        Scanner { ring, newest, floor, config, last_opens: 0, found }
    }

    async fn run(&mut self, window: &mut Readahead) -> io::Result<()> {
        while self.found.end.lsn < window.end() {
            let at = self.found.end.lsn;
            let first = window.get(at, BLOCK).await?;
            let header = match self.check_header(&first) {
                Ok(header) => header,
                Err(fault) => return self.judge(window, fault.into()).await,
            };
            let bytes = window.get(at, u64::from(header.written)).await?;
            match self.check_group(&header, &bytes) {
                Ok(heads) => self.take(&header, heads),
                Err(bad) => return self.judge(window, bad).await,
            }
        }
        Ok(())
    }

    fn check_header(&self, block: &[u8]) -> Result<GroupHeader, GroupFault> {
        let header = GroupHeader::decode(block).map_err(|fault| match fault {
            HeaderFault::NoHeader => GroupFault::NoHeader,
            HeaderFault::Version(found) => GroupFault::Version(found),
            HeaderFault::Lengths => GroupFault::Lengths,
        })?;
        if header.lsn != self.found.end.lsn {
            return Err(GroupFault::OtherLsn);
        }
        if self.config.checks_incarnation() && !self.may_bear(header.lsn, header.incarnation) {
            return Err(GroupFault::Incarnation);
        }
        if self.config.checks_chain() && header.previous != self.found.end.crc {
            return Err(GroupFault::Chain);
        }
        if self.fits(&header) { Ok(header) } else { Err(GroupFault::Lengths) }
    }

    /// Whether the group lies within one lap and does not straddle the end of the ring.
    fn fits(&self, header: &GroupHeader) -> bool {
        let left = self.ring.until_end(header.lsn);
        let claims_the_rest = u64::from(header.length) == left;
        let round = header.end().0 - self.newest.trim.0 <= self.ring.capacity_bytes();
        round && u64::from(header.written) <= left && (header.length == header.written || claims_the_rest)
    }

    /// From the newest opening's start on, exactly that opening has written; before it, openings never fall.
    fn may_bear(&self, lsn: Lsn, incarnation: Incarnation) -> bool {
        if lsn >= self.newest.start {
            incarnation == self.newest.incarnation
        } else {
            incarnation.opens >= self.last_opens && incarnation.opens < self.newest.incarnation.opens
        }
    }

    fn check_group(&self, header: &GroupHeader, bytes: &Bytes) -> Result<Vec<(Entry, BatchHead)>, Bad> {
        let table_end = header.table as usize + header.entries as usize * ENTRY_LEN;
        let table = &bytes[header.table as usize..table_end];
        let mut batches = Vec::with_capacity(header.entries as usize);
        let mut crc = group_crc_start(header.incarnation);
        let mut at = GROUP_HEADER_LEN;
        for raw in table.chunks_exact(ENTRY_LEN) {
            let entry = Entry::decode(raw.try_into().map_err(|_| GroupFault::Table)?);
            let end = at.saturating_add(entry.length as usize);
            if entry.position as usize != at || end > header.table as usize || (entry.length as usize) < HEAD_LEN {
                return Err(GroupFault::Table.into());
            }
            let head = BatchHead::parse(&bytes[at..end]).map_err(|_| GroupFault::Table)?;
            crc = crc32c::crc32c_append(crc, &head.0);
            batches.push((entry, head));
            at = end;
        }
        if at != header.table as usize || group_crc_finish(crc, table, header) != header.crc {
            return Err(GroupFault::GroupCrc.into());
        }
        let agrees = |(entry, head): &(Entry, BatchHead)| {
            head.size_bytes() == entry.length as usize
                && head.base_offset() == entry.base
                && head.last_offset() == entry.last
                && head.leader_epoch() == entry.leader_epoch
        };
        if !batches.iter().all(agrees) {
            return Err(GroupFault::Table.into());
        }
        let sound = |(entry, head): &(Entry, BatchHead)| {
            let start = entry.position as usize;
            head.compute_crc(&bytes[start + HEAD_LEN..start + entry.length as usize]) == head.crc()
        };
        let torn: Vec<Entry> = batches.iter().filter(|batch| !sound(batch)).map(|(entry, _)| *entry).collect();
        if torn.is_empty() { Ok(batches) } else { Err(Bad(GroupFault::BatchCrc, torn)) }
    }

    fn take(&mut self, header: &GroupHeader, batches: Vec<(Entry, BatchHead)>) {
        let found = &mut self.found;
        self.last_opens = header.incarnation.opens;
        found.end = Link { lsn: header.end(), crc: header.crc };
        found.links.push(found.end);
        found.groups += 1;
        found.confirmed = header.durable;
        if header.kind == GroupKind::Data {
            found.data_end = found.end.lsn;
        }
        found.batches.extend(batches.into_iter().map(|(entry, head)| RecoveredBatch {
            partition: entry.partition,
            lsn: Lsn(header.lsn.0 + u64::from(entry.position)),
            head,
        }));
    }

    /// The group at the end is bad: a torn tail, or damage to what was acknowledged? The latter when the superblock or a
    /// later group says that more was durable. Such a group begins within the most that could be in flight.
    async fn judge(&mut self, window: &mut Readahead, Bad(fault, bad): Bad) -> io::Result<()> {
        let at = self.found.end.lsn;
        self.found.tail = fault;
        let mut acknowledged = self.floor.max(self.newest.start);
        let mut gaps = Gaps::after(&self.found.batches);
        let far = at.0 + u64::from(self.newest.max_in_flight_bytes);
        let mut lsn = Lsn(at.0 + BLOCK);
        while lsn.0 <= far && lsn.0 + BLOCK <= window.end().0 {
            let step = match GroupHeader::decode(&window.get(lsn, BLOCK).await?) {
                Ok(header) if header.lsn == lsn && self.is_ours(&header) && self.fits(&header) => {
                    acknowledged = acknowledged.max(header.durable);
                    let bytes = window.get(lsn, u64::from(header.written)).await?;
                    self.check_group(&header, &bytes).map_or(BLOCK, |batches| {
                        gaps.pass(&batches);
                        u64::from(header.length)
                    })
                }
                _ => BLOCK,
            };
            lsn.0 += step;
        }
        if acknowledged > at {
            let named = bad.iter().map(|entry| (entry.partition, entry.base, entry.last)).collect();
            let missing = if bad.is_empty() { gaps.found } else { named };
            let device_offset = self.ring.device_offset(at);
            self.found.damage = Some(Damage { at, device_offset, acknowledged, fault, missing });
        }
        Ok(())
    }

    fn is_ours(&self, header: &GroupHeader) -> bool {
        let before = header.lsn < self.newest.start && header.incarnation.opens < self.newest.incarnation.opens;
        !self.config.checks_incarnation() || before || header.incarnation == self.newest.incarnation
    }
}

/// Offsets that are missing between what was read before a damaged place and what is sound after it.
struct Gaps {
    next: BTreeMap<PartitionId, Offset>,
    found: Vec<(PartitionId, Offset, Offset)>,
}

impl Gaps {
    fn after(batches: &[RecoveredBatch]) -> Gaps {
        let next = batches.iter().map(|batch| (batch.partition, batch.head.last_offset().next())).collect();
        Gaps { next, found: Vec::new() }
    }

    fn pass(&mut self, batches: &[(Entry, BatchHead)]) {
        for (entry, _) in batches {
            if let Some(next) = self.next.insert(entry.partition, entry.last.next()).filter(|next| *next < entry.base) {
                self.found.push((entry.partition, next, Offset(entry.base.0 - 1)));
            }
        }
    }
}
