//! Reads from the WAL ring: batches that left memory before they reached an object, or after a restart.
//!
//! Each read is a task of the cold queue. A budget in bytes is taken before a buffer; reads beyond it wait in line. While a
//! read is under way the trim point stays below it.

use std::{collections::VecDeque, io, rc::Rc};

use bytes::Bytes;
use thalweg_record::Batch;
use thalweg_wal::{Device, Lsn, Ring};

use crate::{
    event::Event,
    partition::RingEntry,
    read::count_read,
    runtime::{Queue, Runtime},
    shard::Shard,
};

/// Batches of other partitions between two of ours are read along when they are no more than this.
const GAP_BYTES: u64 = 64 << 10;
/// One device read is no longer than this.
const SPAN_BYTES: u64 = 4 << 20;
/// Bytes whose CRC is checked before others have a turn.
const CHECKED_PER_TURN: usize = 256 << 10;

type Done = Box<dyn FnOnce(io::Result<Vec<Bytes>>)>;

/// Batches to read, and whom to tell.
pub(crate) struct RingRead {
    batches: Vec<RingEntry>,
    done: Done,
}

impl RingRead {
    /// `batches` ascend in LSN; there is at least one.
    pub(crate) fn new(batches: Vec<RingEntry>, done: Done) -> RingRead {
        RingRead { batches, done }
    }

    fn bytes(&self) -> u64 {
        self.batches.iter().map(|e| u64::from(e.size)).sum()
    }
}

/// The budget and the line of a shard's ring reads.
pub(crate) struct RingReads {
    in_flight: u64,
    limit: u64,
    line: VecDeque<RingRead>,
}

impl RingReads {
    pub(crate) fn new(limit_bytes: u64) -> RingReads {
        RingReads { in_flight: 0, limit: limit_bytes, line: VecDeque::new() }
    }
}

/// A stretch of the ring that one device read covers.
pub(crate) struct Span {
    start: Lsn,
    len: u64,
    batches: Vec<RingEntry>,
}

/// Covers `batches` by as few reads as gaps, the span limit and the ring's end allow.
pub(crate) fn spans(ring: Ring, batches: &[RingEntry]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for entry in batches {
        let end = entry.lsn.0 + u64::from(entry.size);
        if let Some(span) = spans.last_mut() {
            let (gap, len) = (entry.lsn.0 - (span.start.0 + span.len), end - span.start.0);
            if gap <= GAP_BYTES && len <= SPAN_BYTES && len <= ring.until_end(span.start) {
                span.len = len;
                span.batches.push(*entry);
                continue;
            }
        }
        spans.push(Span { start: entry.lsn, len: u64::from(entry.size), batches: vec![*entry] });
    }
    spans
}

/// Reads the spans one after the other; one `Bytes` per batch, in order, each verified by its CRC.
pub(crate) async fn read_spans(
    runtime: &dyn Runtime,
    device: Rc<dyn Device>,
    ring: Ring,
    spans: Vec<Span>,
) -> io::Result<Vec<(RingEntry, Bytes)>> {
    let (mut batches, mut checked) = (Vec::new(), 0);
    for span in spans {
        let chunk = thalweg_wal::read(device.clone(), ring, span.start, span.len as usize).await?;
        for entry in span.batches {
            let from = (entry.lsn.0 - span.start.0) as usize;
            let bytes = chunk.slice(from..from + entry.size as usize);
            verify(&entry, bytes.clone())?;
            checked += bytes.len();
            batches.push((entry, bytes));
            if checked >= CHECKED_PER_TURN {
                checked = 0;
                runtime.give_way().await;
            }
        }
    }
    Ok(batches)
}

fn verify(entry: &RingEntry, mut bytes: Bytes) -> io::Result<()> {
    let rotten = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let batch = Batch::split_from(&mut bytes).map_err(|e| rotten(format!("batch at LSN {}: {e}", entry.lsn)))?;
    // What no CRC of the batch covers is compared, and the CRC itself: a sound batch may be another partition's, written to a wrong place.
    let found = (batch.head.base_offset(), batch.head.leader_epoch(), batch.head.crc());
    let stamped = found == (entry.base, entry.leader_epoch, entry.crc);
    if !stamped || batch.verify_crc().is_err() {
        return Err(rotten(format!("batch of offset {} at LSN {} is damaged", entry.base, entry.lsn)));
    }
    Ok(())
}

impl Shard {
    /// Starts a read, or puts it in line when the budget is spent.
    pub(crate) fn read_ring(&mut self, read: RingRead) {
        let fits = self.ring_reads.in_flight + read.bytes() <= self.ring_reads.limit;
        if fits || self.ring_reads.in_flight == 0 {
            self.start_ring_read(read);
        } else {
            self.ring_reads.line.push_back(read);
        }
    }

    fn start_ring_read(&mut self, read: RingRead) {
        let bytes = read.bytes();
        let Some(lsn) = read.batches.first().map(|e| e.lsn) else { return (read.done)(Ok(Vec::new())) };
        if lsn < self.log.trim_point() {
            // It waited in line while its object was committed and the ring moved on; the reader asks again.
            return (read.done)(Err(io::ErrorKind::Interrupted.into()));
        }
        self.ring_reads.in_flight += bytes;
        *self.reading.entry(lsn).or_default() += 1;
        let (device, ring) = (self.ports.device.clone(), self.log.ring());
        let spans = spans(ring, &read.batches);
        spans.iter().for_each(|span| self.ports.pace.spend(self.now, span.len));
        let (events, meters) = (self.events.clone(), self.ports.meters.clone());
        let runtime = self.ports.runtime.clone();
        let task = async move {
            let result = read_spans(&*runtime, device, ring, spans).await;
            let result = result.map(|batches| batches.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
            if let Ok(batches) = &result {
                count_read(&meters.reads.ring, &meters.read_bytes.ring, batches);
            }
            let _gone = events.try_send(Event::RingReadEnded { result, read });
        };
        self.ports.runtime.spawn(Queue::Cold, "ring-read", Box::pin(task));
    }

    /// A read ended: its budget goes to the next in line. One that failed because a trim that was under way when it began gave its
    /// place to other groups is to be asked again.
    pub(crate) fn ring_read_ended(&mut self, result: io::Result<Vec<Bytes>>, read: RingRead) {
        let (bytes, Some(lsn)) = (read.bytes(), read.batches.first().map(|e| e.lsn)) else { return };
        let trimmed = lsn < self.log.trim_point();
        (read.done)(result.map_err(|error| {
            if trimmed {
                return io::ErrorKind::Interrupted.into();
            }
            tracing::error!(%lsn, %error, "reading from the WAL ring failed");
            error
        }));
        self.ring_reads.in_flight -= bytes;
        if let Some(readers) = self.reading.get_mut(&lsn) {
            *readers -= 1;
            if *readers == 0 {
                self.reading.remove(&lsn);
            }
        }
        while let Some(next) = self.ring_reads.line.front() {
            if self.ring_reads.in_flight > 0 && self.ring_reads.in_flight + next.bytes() > self.ring_reads.limit {
                break;
            }
            let Some(next) = self.ring_reads.line.pop_front() else { break };
            self.start_ring_read(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};
    use thalweg_record::{BatchHead, HEAD_LEN, LeaderEpoch, Offset, Wall};
    use thalweg_wal::device::MemoryDevice;

    use super::*;
    use crate::runtime::seeded::{Node, World};

    fn batch(body: &[u8]) -> (RingEntry, Vec<u8>) {
        let mut head = BatchHead([0; HEAD_LEN]);
        head.0[16] = 2;
        head.set_batch_length((HEAD_LEN - 12 + body.len()) as i32);
        head.set_record_count(1);
        head.set_crc(head.compute_crc(body));
        let entry = RingEntry {
            base: Offset(0),
            last: Offset(0),
            lsn: Lsn(0),
            size: (HEAD_LEN + body.len()) as u32,
            leader_epoch: LeaderEpoch(0),
            crc: head.crc(),
            max_timestamp: Wall(0),
            running_max: Wall(0),
            through: 0,
        };
        (entry, [&head.0[..], body].concat())
    }

    #[test]
    fn a_long_read_lets_others_have_their_turn() {
        let (entry, bytes) = batch(&[7; 100_000]);
        let (size, device) = (u64::from(entry.size), Rc::new(MemoryDevice::new(5 << 20)));
        let ring = Ring::of_device(5 << 20).expect("a ring");
        let at = |n: u64| RingEntry { lsn: Lsn(n * size), ..entry };
        device.change(|all| {
            for n in 0..40 {
                let from = ring.device_offset(at(n).lsn) as usize;
                all[from..from + bytes.len()].copy_from_slice(&bytes);
            }
        });
        let world = World::new(3);
        let runtime = world.runtime(Node(0));
        let read =
            |count| read_spans(&*runtime, device.clone(), ring, spans(ring, &Vec::from_iter((0..count).map(at))));
        let short = block_on(poll_once(read(2)));
        assert_eq!(short.expect("memory does not wait").expect("sound").len(), 2);
        assert!(block_on(poll_once(read(40))).is_none(), "4 MB are not checked at one stroke");
    }

    #[test]
    fn no_bit_of_a_batch_may_differ() {
        let (entry, sound) = batch(&[7; 40]);
        verify(&entry, sound.clone().into()).expect("it is what was written");
        for bit in 0..8 * sound.len() {
            let mut rotten = sound.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&entry, rotten.into()).is_err(), "bit {bit}");
        }
    }
}
