//! Groups: filled by `push`, closed by `seal`, acknowledged by `written` in log order.

use std::{collections::VecDeque, io, rc::Rc};

use thalweg_record::{BatchHead, Mono, PartitionId};

use super::{Link, Room, Superblocks, links::Links, open_group::OpenGroup, space::Space, zero::Zeroing};
use crate::{
    Device, GroupId, Incarnation, IoBuf, LogConfig, Lsn, Ring,
    format::{BLOCK, ENTRY_LEN, GROUP_HEADER_LEN, GroupHeader, GroupKind, SliceIdentity},
};

/// One write to the ring, to be carried to the device as it is. Afterwards `buf` holds the bytes at `start ..` for
/// the tail cache: the batch at `lsn` lies at `buf[lsn - start ..]`.
#[must_use = "the log waits for `written`"]
pub struct GroupWrite {
    /// To report back with.
    pub id: GroupId,
    /// Offset on the device in bytes.
    pub at: u64,
    /// LSN of the first byte of `buf`.
    pub start: Lsn,
    /// LSN after the group. At the end of the ring it lies further than `buf` reaches.
    pub end: Lsn,
    /// The bytes, whole blocks.
    pub buf: IoBuf,
}

/// An I/O error was reported: the slice acknowledges nothing any more, and no write is tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the WAL slice is poisoned by an I/O error: {why}")]
pub struct Poisoned {
    /// The first error.
    pub why: String,
}

pub(super) struct InFlight {
    id: GroupId,
    end: Link,
    confirms: Lsn,
    data: bool,
    done: bool,
}

/// The log of one WAL slice.
pub struct Log {
    pub(super) device: Rc<dyn Device>,
    pub(super) ring: Ring,
    pub(super) config: LogConfig,
    pub(super) incarnation: Incarnation,
    pub(super) next_id: u64,
    /// End and group CRC of the last sealed group.
    pub(super) head: Link,
    /// End and group CRC of the last group of the contiguous durable prefix.
    pub(super) durable: Link,
    /// End of the last durable group that carries batches.
    pub(super) data_end: Lsn,
    /// What the last durable group says was durable.
    pub(super) confirmed: Lsn,
    pub(super) open: Option<OpenGroup>,
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) last_sealed: Mono,
    /// Size of the group before the open one, for the choice of its buffer.
    pub(super) usual_bytes: usize,
    pub(super) space: Space,
    pub(super) links: Links,
    pub(super) superblocks: Superblocks,
    pub(super) zeroing: Zeroing,
    pub(super) poisoned: Option<Poisoned>,
}

/// Where a log goes on after recovery.
pub(crate) struct Resume {
    pub head: Link,
    pub links: Vec<Link>,
    pub data_end: Lsn,
    pub confirmed: Lsn,
    pub superblocks: Superblocks,
}

impl Log {
    pub(crate) fn resume(device: Rc<dyn Device>, ring: Ring, config: LogConfig, from: Resume) -> Log {
        let newest = from.superblocks.newest();
        let mut links = Links::new(ring.capacity_bytes());
        from.links.into_iter().for_each(|link| links.push(link));
        Log {
            zeroing: Zeroing::new(newest.zeroed, device.wants_zeroing()),
            incarnation: config.bears(newest.incarnation),
            device,
            ring,
            config,
            next_id: 0,
            head: from.head,
            durable: from.head,
            data_end: from.data_end,
            confirmed: from.confirmed,
            open: None,
            in_flight: VecDeque::new(),
            last_sealed: Mono::default(),
            usual_bytes: 0,
            space: Space::default(),
            links,
            superblocks: from.superblocks,
            poisoned: None,
        }
    }

    /// Copies a batch into the open group, and opens one if there is none. Returns the LSN of the batch's first byte.
    /// Leader epoch, base and last offset are taken from `head`, which the shard has stamped.
    ///
    /// # Panics
    /// When the batch is larger than `room`, or does not fit into the open group: the shard asks [`Log::would_fit`] and
    /// seals first if it must.
    pub fn push(&mut self, room: Room, partition: PartitionId, head: &BatchHead, body: &[u8]) -> Lsn {
        let batch = head.0.len() + body.len();
        assert!(u32::try_from(batch).is_ok_and(|bytes| room.covers(bytes)), "a batch is larger than its room");
        assert!(self.would_fit(batch as u32), "a batch does not fit into the open group: seal first");
        self.space.release(room);
        if self.open.is_none() {
            let first = GROUP_HEADER_LEN + ENTRY_LEN + batch;
            let room = self.usual_bytes.clamp(first, (self.config.max_group_bytes as usize).max(first));
            self.open = Some(OpenGroup::begin(&*self.device, self.head.lsn, self.incarnation, room));
        }
        let open = self.open.as_mut().expect("opened just above");
        open.push(&*self.device, self.config.max_group_bytes, partition, head, body)
    }

    /// Bytes of the open group, header and table included; 0 when none is open.
    pub fn staged_bytes(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.bytes() as u32)
    }

    /// Whether a batch of `bytes` still fits into the open group (or into a fresh one, when none is open).
    pub fn would_fit(&self, bytes: u32) -> bool {
        let before = self.open.as_ref().map_or(GROUP_HEADER_LEN, OpenGroup::bytes);
        before + bytes as usize + ENTRY_LEN <= self.config.max_group_bytes as usize
    }

    /// Closes the open group and returns the write that carries it.
    ///
    /// `None` when nothing is staged, when the log is poisoned, and when the group has to wait: for
    /// [`LogConfig::max_in_flight_bytes`], or for a zero write that lies in its place. Then seal again after the next
    /// [`Log::written`] or [`Log::zeroed`]; meanwhile the group goes on taking batches.
    pub fn seal(&mut self, now: Mono) -> Option<GroupWrite> {
        let bytes = self.staged_bytes();
        if bytes == 0 || !self.may_submit(u64::from(bytes)) {
            return None;
        }
        let open = self.open.take()?;
        self.usual_bytes = bytes as usize;
        Some(self.submit(open, GroupKind::Data, now))
    }

    /// An empty group that confirms the last one, so that damage to it will be told from a torn tail.
    ///
    /// `None` unless the log is idle: nothing staged, nothing in flight, the last batch not confirmed by a later group,
    /// and nothing sealed for [`LogConfig::marker_idle`]. Ask at [`Log::marker_due`].
    pub fn marker(&mut self, now: Mono) -> Option<GroupWrite> {
        let due = self.marker_due()?;
        if now < due || !self.may_submit(BLOCK) || self.free_for_internal() < BLOCK {
            return None;
        }
        let empty = OpenGroup::begin(&*self.device, self.head.lsn, self.incarnation, BLOCK as usize);
        Some(self.submit(empty, GroupKind::Marker, now))
    }

    /// A marker that claims the end of the ring when that is too short for the largest group, as after an opening with a
    /// greater one. `Err` when the ring is too full to give it up.
    pub(crate) fn leave_short_end(&mut self, now: Mono) -> Result<Option<GroupWrite>, ()> {
        let left = self.ring.until_end(self.head.lsn);
        if left >= u64::from(self.config.max_group_bytes) {
            return Ok(None);
        }
        if self.used_bytes() + left > self.capacity_bytes() {
            return Err(());
        }
        let empty = OpenGroup::begin(&*self.device, self.head.lsn, self.incarnation, BLOCK as usize);
        Ok(Some(self.submit(empty, GroupKind::Marker, now)))
    }

    /// When [`Log::marker`] will have something to write, if nothing else is sealed before; `None` when it will not.
    pub fn marker_due(&self) -> Option<Mono> {
        let idle = self.open.is_none() && self.in_flight.is_empty() && self.poisoned.is_none();
        let wanted = idle && self.data_end > self.confirmed && !self.superblocks.closed();
        wanted.then(|| self.last_sealed.plus(self.config.marker_idle))
    }

    fn may_submit(&self, bytes: u64) -> bool {
        let length = self.length_with_skip(bytes);
        let in_flight = self.head.lsn.0 - self.durable.lsn.0;
        let fits = in_flight == 0 || in_flight + length <= u64::from(self.config.max_in_flight_bytes);
        let place = self.ring.device_offset(self.head.lsn);
        self.poisoned.is_none() && fits && !self.zeroing.overlaps(place, crate::format::round_up(bytes))
    }

    /// How far a group of `bytes` advances the LSN: at the end of the ring it claims what is too short for the next.
    fn length_with_skip(&self, bytes: u64) -> u64 {
        let written = crate::format::round_up(bytes);
        let left = self.ring.until_end(self.head.lsn) - written;
        written + if left < u64::from(self.config.max_group_bytes) { left } else { 0 }
    }

    fn submit(&mut self, open: OpenGroup, kind: GroupKind, now: Mono) -> GroupWrite {
        let written = crate::format::round_up(open.bytes() as u64);
        let length = self.length_with_skip(written);
        let header = GroupHeader {
            kind,
            incarnation: self.incarnation,
            lsn: self.head.lsn,
            length: length as u32,
            written: written as u32,
            durable: self.durable.lsn,
            previous: self.head.crc,
            entries: 0,
            table: 0,
            crc: 0,
        };
        let (buf, crc) = open.finish(&*self.device, header);
        let id = GroupId(self.next_id);
        let end = Link { lsn: Lsn(self.head.lsn.0 + length), crc };
        let data = kind == GroupKind::Data;
        self.next_id += 1;
        self.in_flight.push_back(InFlight { id, end, confirms: header.durable, data, done: false });
        self.head = end;
        self.last_sealed = now;
        GroupWrite { id, at: self.ring.device_offset(header.lsn), start: header.lsn, end: end.lsn, buf }
    }

    /// Tells what came of a group's write. Returns the end of the contiguous durable prefix: all below may be
    /// acknowledged and exposed, whatever order the writes complete in.
    ///
    /// # Errors
    /// The first I/O error poisons the log for ever, and is returned from then on.
    pub fn written(&mut self, id: GroupId, r: io::Result<()>) -> Result<Lsn, Poisoned> {
        self.check(r)?;
        let front = self.in_flight.front().map_or(id.0, |group| group.id.0);
        let group = id.0.checked_sub(front).and_then(|i| self.in_flight.get_mut(i as usize));
        group.expect("a write is reported once, by the group it carried").done = true;
        while self.in_flight.front().is_some_and(|group| group.done) {
            let Some(group) = self.in_flight.pop_front() else { break };
            self.durable = group.end;
            self.confirmed = group.confirms;
            self.links.push(group.end);
            if group.data {
                self.data_end = group.end.lsn;
            }
        }
        Ok(self.durable.lsn)
    }

    pub(super) fn check(&mut self, r: io::Result<()>) -> Result<(), Poisoned> {
        if let (Err(e), None) = (r, &self.poisoned) {
            self.poisoned = Some(Poisoned { why: e.to_string() });
        }
        self.poisoned.clone().map_or(Ok(()), Err)
    }

    /// The LSN where the next group begins: all below is sealed.
    pub fn head(&self) -> Lsn {
        self.head.lsn
    }

    /// End of the contiguous durable prefix.
    pub fn durable(&self) -> Lsn {
        self.durable.lsn
    }

    /// The error that poisoned the log, if one did.
    pub fn poisoned(&self) -> Option<&Poisoned> {
        self.poisoned.as_ref()
    }

    /// Which opening of the slice this is.
    pub fn incarnation(&self) -> Incarnation {
        self.superblocks.newest().incarnation
    }

    /// Whose slice this is.
    pub fn identity(&self) -> SliceIdentity {
        self.superblocks.newest().identity
    }

    /// Where LSNs lie, for [`crate::read`].
    pub fn ring(&self) -> Ring {
        self.ring
    }

    /// Offset of an LSN on the device, in bytes.
    pub fn device_offset(&self, lsn: Lsn) -> u64 {
        self.ring.device_offset(lsn)
    }
}
