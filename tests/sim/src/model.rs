//! The reference model: all that was sent, and what must hold of it given what was seen. It judges every answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use thalweg_record::{Batch, Offset, PartitionId};
use thalweg_shards::runtime::seeded::Stream;

use crate::keyed::{self, Moment, Pass, Record};

/// A batch's identity: producer and first sequence.
type Name = (i64, i32);

/// A batch that a producer sent.
struct Sent {
    partition: PartitionId,
    records: i64,
    body: Bytes,
    time: i64,
    at: Moment,
    /// The single records, where the log is cleaned.
    keyed: Vec<Record>,
}

/// What is known of one partition.
#[derive(Default)]
struct Known {
    /// Batches that were acknowledged or read, by first offset: they stay there for ever.
    pinned: BTreeMap<i64, (i64, Name)>,
    places: BTreeMap<Name, i64>,
    /// CRCs of the heads of batches that were read: what the broker stamps into one stays.
    heads: BTreeMap<Name, u32>,
    /// First offset after all that was acknowledged.
    acknowledged: i64,
    /// Greatest high watermark that anybody saw.
    high_watermark: i64,
    log_start: i64,
    expires: bool,
    /// Its log is cleaned.
    keyed: bool,
}

/// The model.
pub(crate) struct Model {
    sent: BTreeMap<Name, Sent>,
    known: BTreeMap<PartitionId, Known>,
    producers: BTreeSet<i64>,
    violation: Option<String>,
    /// What the last read of a log that is cleaned found: offsets and keys.
    found: Vec<(i64, Bytes)>,
    pub(crate) acknowledged: u64,
    pub(crate) read: u64,
    /// Batches that were read with fewer records than they were sent with.
    pub(crate) thinned: u64,
    /// Whole logs that were read and judged by their keys.
    pub(crate) passes: u64,
}

impl Model {
    /// Knows the partitions, and which of them retention may cut.
    pub(crate) fn new(partitions: impl Iterator<Item = (PartitionId, bool)>) -> Model {
        let known = partitions.map(|(id, expires)| (id, Known { expires, ..Known::default() })).collect();
        Model {
            sent: BTreeMap::new(),
            known,
            producers: BTreeSet::new(),
            violation: None,
            found: Vec::new(),
            acknowledged: 0,
            read: 0,
            thinned: 0,
            passes: 0,
        }
    }

    /// A partition is there from now on; retention or somebody may cut it.
    pub(crate) fn add(&mut self, partition: PartitionId, expires: bool, keyed: bool) {
        self.known.insert(partition, Known { expires, keyed, ..Known::default() });
    }

    /// Whether the partition's log is cleaned.
    pub(crate) fn is_keyed(&self, partition: PartitionId) -> bool {
        self.known.get(&partition).is_some_and(|known| known.keyed)
    }

    /// What the read that was judged last found in a log that is cleaned.
    pub(crate) fn take_found(&mut self) -> Vec<(i64, Bytes)> {
        std::mem::take(&mut self.found)
    }

    /// Somebody has read a whole log that is cleaned.
    pub(crate) fn passed(&mut self, partition: PartitionId, pass: &Pass, now: Moment) {
        self.passes += 1;
        let places = &self.known[&partition].places;
        let here = self.sent.iter().filter(|(_, sent)| sent.partition == partition);
        let records = here.flat_map(|(name, sent)| {
            let place = places.get(name).copied();
            sent.keyed.iter().map(move |record| (place.map(|base| base + record.delta), record, sent.at))
        });
        if let Err(why) = pass.judge(records, now) {
            self.broken(format!("{partition}: {why}"));
        }
    }

    /// The broker gave a producer its id.
    pub(crate) fn producer_began(&mut self, id: i64) {
        if !self.producers.insert(id) {
            self.broken(format!("producer id {id} was handed out twice"));
        }
    }

    /// The first invariant that was broken.
    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Records that an invariant is broken; the first counts.
    pub(crate) fn broken(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// A batch is about to be sent for the first time.
    pub(crate) fn sent(&mut self, partition: PartitionId, batch: &Batch, at: Moment) {
        let name = (batch.head.producer_id(), batch.head.base_sequence());
        let (records, time) = (i64::from(batch.head.record_count()), batch.head.max_timestamp());
        let keyed = if self.is_keyed(partition) { keyed::records(batch).expect("made here") } else { Vec::new() };
        self.sent.insert(name, Sent { partition, records, body: batch.body.clone(), time, at, keyed });
    }

    /// A batch was acknowledged at `base`.
    pub(crate) fn acknowledged(&mut self, partition: PartitionId, name: Name, base: Offset) {
        let records = self.sent[&name].records;
        self.acknowledged += 1;
        if let Err(why) = self.pin(partition, base.0, base.0 + records - 1, name) {
            self.broken(format!("acknowledged: {why}"));
        }
        let known = self.known.get_mut(&partition).expect("a partition of the run");
        known.acknowledged = known.acknowledged.max(base.0 + records);
    }

    /// A high watermark was shown to somebody who asked when `floor` was the least that it could be.
    pub(crate) fn high_watermark(&mut self, partition: PartitionId, shown: Offset, floor: Offset) {
        if shown < floor {
            self.broken(format!("{partition}: high watermark {shown} fell below {floor}"));
        }
        let known = self.known.get_mut(&partition).expect("a partition of the run");
        known.high_watermark = known.high_watermark.max(shown.0);
    }

    /// A log start was shown to somebody who asked when `floor` was the least that it could be.
    pub(crate) fn log_start(&mut self, partition: PartitionId, shown: Offset, floor: Offset) {
        if shown < floor {
            self.broken(format!("{partition}: log start {shown} fell below {floor}"));
        }
        let known = self.known.get_mut(&partition).expect("a partition of the run");
        let allowed = if known.expires { known.high_watermark.max(known.acknowledged) } else { 0 };
        known.log_start = known.log_start.max(shown.0);
        if shown.0 > allowed {
            self.broken(format!("{partition}: log start {shown} is above {allowed}"));
        }
    }

    /// The least that the high watermark may be from now on.
    pub(crate) fn floor(&self, partition: PartitionId) -> Offset {
        let known = &self.known[&partition];
        Offset(known.acknowledged.max(known.high_watermark))
    }

    /// The least log start that is known.
    pub(crate) fn start(&self, partition: PartitionId) -> Offset {
        Offset(self.known[&partition].log_start)
    }

    /// A reader got `pieces` for `offset`, and was told of `end`. Says where it goes on.
    pub(crate) fn read(&mut self, partition: PartitionId, offset: Offset, end: Offset, pieces: Vec<Bytes>) -> Offset {
        let mut next: Option<Offset> = None;
        self.found.clear();
        for mut piece in pieces {
            while !piece.is_empty() {
                match self.judge(partition, offset, next, &mut piece) {
                    Ok(after) => next = Some(after),
                    Err(why) => {
                        self.broken(format!("{partition} read at {offset}: {why}"));
                        return offset;
                    }
                }
            }
        }
        let next = next.unwrap_or(offset);
        if next > end.max(offset) {
            self.broken(format!("{partition} read at {offset}: up to {next}, past the end {end}"));
        }
        next
    }

    fn judge(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        expected: Option<Offset>,
        piece: &mut Bytes,
    ) -> Result<Offset, String> {
        let batch = Batch::split_from(piece).map_err(|e| e.to_string())?;
        batch.verify_crc().map_err(|e| e.to_string())?;
        let (base, last) = (batch.head.base_offset(), batch.head.last_offset());
        if self.is_keyed(partition) {
            return self.judge_keyed(partition, offset, expected, &batch);
        }
        match expected {
            Some(expected) if base != expected => return Err(format!("{base} comes where {expected} should")),
            None if base > offset || last < offset => return Err(format!("the first batch is {base} to {last}")),
            _ => {}
        }
        let name = (batch.head.producer_id(), batch.head.base_sequence());
        let sent = self.sent.get(&name).ok_or_else(|| format!("batch {name:?} was never sent"))?;
        if sent.partition != partition || sent.body != batch.body || sent.records != last.0 - base.0 + 1 {
            let told = |partition, records, body: &[u8]| format!("{records} of {} bytes for {partition}", body.len());
            let (read, sent) =
                (told(partition, last.0 - base.0 + 1, &batch.body), told(sent.partition, sent.records, &sent.body));
            return Err(format!("batch {name:?} at {base} is not what was sent: {read}; but {sent}"));
        }
        self.pin(partition, base.0, last.0, name)?;
        let (head, known) = (crc32c::crc32c(&batch.head.0), self.known.get_mut(&partition));
        if known.is_some_and(|known| *known.heads.entry(name).or_insert(head) != head) {
            return Err(format!("the head of batch {name:?} at {base} is not what was read before"));
        }
        self.read += 1;
        Ok(last.next())
    }

    /// A batch of a log that is cleaned: where it was, with all or some of its records as they were sent. Offsets before it may be gone.
    fn judge_keyed(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        expected: Option<Offset>,
        batch: &Batch,
    ) -> Result<Offset, String> {
        let (base, last) = (batch.head.base_offset(), batch.head.last_offset());
        if last < offset || expected.is_some_and(|expected| base < expected) {
            return Err(format!("{base} to {last} comes where {} should", expected.unwrap_or(offset)));
        }
        let name = (batch.head.producer_id(), batch.head.base_sequence());
        let sent = self.sent.get(&name).ok_or_else(|| format!("batch {name:?} was never sent"))?;
        let read = keyed::records(batch).map_err(|why| format!("batch {name:?} at {base}: {why}"))?;
        let whole = sent.partition == partition && sent.records == last.0 - base.0 + 1;
        if !whole || !keyed::is_left_of(&read, &sent.keyed) {
            return Err(format!("batch {name:?} at {base} is not what was sent, and not what cleaning leaves of it"));
        }
        self.thinned += u64::from(read.len() < sent.keyed.len());
        self.pin(partition, base.0, last.0, name)?;
        self.found.extend(read.into_iter().map(|record| (base.0 + record.delta, record.key)));
        self.read += 1;
        Ok(last.next())
    }

    /// From now on the batch is at this place, once, and in its producer's order.
    fn pin(&mut self, partition: PartitionId, base: i64, last: i64, name: Name) -> Result<(), String> {
        let known = self.known.get_mut(&partition).expect("a partition of the run");
        if known.pinned.get(&base) == Some(&(last, name)) {
            return Ok(());
        }
        if let Some(place) = known.places.get(&name) {
            return Err(format!("batch {name:?} is at {base} and at {place}: twice, or moved"));
        }
        if let Some((other, (end, by))) = known.pinned.range(..=last).next_back().filter(|(_, (end, _))| *end >= base) {
            return Err(format!("batch {name:?} at {base}..={last}, where {by:?} was seen at {other}..={end}"));
        }
        let before = known.places.range((name.0, i32::MIN)..name).next_back();
        let after = known.places.range((name.0, name.1)..=(name.0, i32::MAX)).next();
        if before.is_some_and(|(_, place)| *place > base) || after.is_some_and(|(_, place)| *place < base) {
            return Err(format!("batch {name:?} at {base} is out of its producer's order"));
        }
        known.pinned.insert(base, (last, name));
        known.places.insert(name, base);
        Ok(())
    }

    /// A time to ask for: that of a batch that has a place, or one beside it.
    pub(crate) fn some_time(&self, partition: PartitionId, random: &mut Stream) -> Option<i64> {
        let pinned = &self.known[&partition].pinned;
        let at = random.below(pinned.len().max(1) as u64) as usize;
        let (_, name) = pinned.values().nth(at)?;
        Some(self.sent[name].time + random.below(3) as i64 - 1)
    }

    /// For the first offset from time `at` on, `found` was answered to somebody who asked when all below `floor` was there.
    pub(crate) fn by_time(&mut self, partition: PartitionId, at: i64, floor: Offset, found: (i64, i64)) {
        let known = &self.known[&partition];
        let (offset, time) = found;
        let batch = known.pinned.get(&offset).map(|(_, name)| self.sent[name].time);
        if known.keyed {
            // Which records are left nobody knows here.
            if offset >= 0 && time < at {
                self.broken(format!("{partition}: from {at} on {offset} of {time} is the first"));
            }
            return;
        }
        // What retention has cut nobody is asked for.
        let first = if known.expires { i64::MAX } else { 0 };
        let late = |(_, name): &&(i64, Name)| self.sent[name].time >= at;
        let last = if offset < 0 { floor.0 } else { offset.min(floor.0) };
        let missed = known.pinned.range(first.min(last)..last).find(|(_, batch)| late(batch)).map(|(base, _)| *base);
        if let Some(missed) = missed {
            self.broken(format!("{partition}: from {at} on {offset} is the first, but {missed} is as late"));
        } else if offset >= 0 && (time < at || batch.is_some_and(|batch| batch != time)) {
            self.broken(format!("{partition}: from {at} on {offset} of {time} is the first, its time is {batch:?}"));
        }
    }

    /// At the end, when all was read from `start` to `end`: everything is known, dense, and nothing that was seen is gone.
    pub(crate) fn complete(&mut self, partition: PartitionId, start: Offset, end: Offset) {
        let known = &self.known[&partition];
        let mut next = None;
        let mut gaps = Vec::new();
        for (base, (last, _)) in known.pinned.iter().filter(|(_, (last, _))| *last >= start.0) {
            if next.is_some_and(|next| next != *base) {
                gaps.push(*base);
            }
            next = Some(last + 1);
        }
        let (next, sent) = (next.unwrap_or(start.0), self.sent.values().filter(|s| s.partition == partition).count());
        let placed = known.places.len();
        if !gaps.is_empty() || next != end.0 {
            self.broken(format!("{partition}: seen up to {next}, the end is {end}, gaps before {gaps:?}"));
        } else if placed != sent {
            self.broken(format!("{partition}: {sent} batches were sent and acknowledged, {placed} have a place"));
        }
    }
}
