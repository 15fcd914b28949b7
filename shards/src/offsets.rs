//! Offsets by time and by special value (ListOffsets), over the three tiers.
//!
//! Special values are answered in the turn. A time is looked up in a task of the cold queue: first in the objects that
//! reach it, then in the ring. Heads may lie about their greatest timestamp, so a miss inside a batch goes on to the next.

use std::{io, rc::Rc};

use bytes::Bytes;
use flume::Sender;
use thalweg_record::{LeaderEpoch, Offset, PartitionId, Wall};

use crate::{
    cold::{ColdError, ColdFindTime, ColdManifest, ColdRequest, Entries},
    event::Event,
    mailbox::ShardLane,
    meta::{CommittedObject, ManifestRef, ObjectId},
    moves::LentSearch,
    msg::{ConnId, FoundOffset, OffsetQuery, OffsetsRequest, PartitionError, Reply, Request},
    partition::{Partition, RingEntry},
    records::{FoundTime, first_record_at},
    ring_read::RingRead,
    runtime::{Queue, Runtime},
    shard::Shard,
};

/// Objects and batches that a look-up is shown; a miss in all of them means that their heads lie.
const CANDIDATES: usize = 16;

/// The connection under which look-ups queue among cold readers.
const LOOKUPS: ConnId = ConnId(u64::MAX);

/// How often a look-up is made before it fails, when the ring is trimmed, or an object gone, under it each time.
const TRIES: usize = 5;

/// A look-up that needs the records themselves.
struct Search {
    partition: PartitionId,
    time: Wall,
    from: Offset,
    /// First offset that the ring serves.
    ring_from: Offset,
    end: Offset,
    /// Lists of older objects of which some reach the time.
    manifests: Vec<Rc<ManifestRef>>,
    objects: Vec<Rc<CommittedObject>>,
    /// Whoever lends what lies between objects and ring, when something there may be as late.
    loan: Option<InLoan>,
    /// Candidate batches in the ring, in order, with their bytes where memory has them.
    batches: Vec<(RingEntry, Option<Bytes>)>,
}

/// Where to look in a loan.
struct InLoan {
    lender: ShardLane,
    committed_end: Offset,
}

enum Lookup {
    Found(FoundOffset),
    Search(Box<Search>),
}

/// A look-up that begins anew, and whom to tell what the partition is like now.
pub(crate) struct LookUp {
    partition: PartitionId,
    time: Wall,
    tell: Sender<Result<Lookup, PartitionError>>,
}

impl Shard {
    /// Answers a look-up, at once when nothing has to be read.
    pub(crate) fn offsets(&mut self, request: OffsetsRequest) {
        let OffsetsRequest { parts, reply, .. } = request;
        let lookups: Vec<(OffsetQuery, Result<Lookup, PartitionError>)> =
            parts.into_iter().map(|(id, query, current)| (query, self.look_up_at(id, query, current))).collect();
        let runtime = self.ports.runtime.clone();
        if !lookups.iter().any(|(_, l)| matches!(l, Ok(Lookup::Search(_)))) {
            let found =
                lookups.into_iter().map(|(_, l)| l.map(|l| if let Lookup::Found(f) = l { f } else { NONE })).collect();
            return reply.send(Reply::Offsets(found));
        }
        let asked = Asked { cold: self.ports.cold.clone(), events: self.events.clone(), runtime: runtime.clone() };
        let task = async move {
            let mut found = Vec::with_capacity(lookups.len());
            for (query, lookup) in lookups {
                found.push(match lookup {
                    Err(error) => Err(error),
                    Ok(Lookup::Found(offset)) => Ok(offset),
                    Ok(Lookup::Search(search)) => asked.look_for(query, search).await,
                });
            }
            reply.send(Reply::Offsets(found));
        };
        self.ports.runtime.spawn(Queue::Cold, "offsets", Box::pin(task));
    }

    /// Tells a look-up under way what the partition is like now.
    pub(crate) fn look_up_again(&self, again: LookUp) {
        let LookUp { partition, time, tell } = again;
        let _gone = tell.try_send(self.look_up_at(partition, OffsetQuery::Time(time), None));
    }

    fn look_up_at(
        &self,
        id: PartitionId,
        query: OffsetQuery,
        current: Option<LeaderEpoch>,
    ) -> Result<Lookup, PartitionError> {
        let partition = self.owned(&id)?;
        partition.check_epoch(current)?;
        Ok(self.look_up(partition, query))
    }

    fn look_up(&self, partition: &Partition, query: OffsetQuery) -> Lookup {
        let at = |offset: Offset| {
            let leader_epoch = partition.epochs.at(offset).or(Some(partition.epoch));
            Lookup::Found(FoundOffset { offset: Some(offset), timestamp: None, leader_epoch })
        };
        match query {
            OffsetQuery::Latest => at(partition.readable_end()),
            OffsetQuery::Earliest | OffsetQuery::EarliestLocal => at(partition.log_start),
            OffsetQuery::LatestTiered => Lookup::Found(NONE),
            OffsetQuery::Time(time) => self.search(partition, time),
            OffsetQuery::MaxTimestamp => {
                let object = partition.objects.max_timestamp(partition.log_start);
                let from = partition.committed_end.max(partition.log_start);
                let ring = partition.ring.max_timestamp(from, partition.readable_end()).map(|e| e.max_timestamp);
                let borrowed = partition.borrowed.as_ref().filter(|b| b.until > partition.log_start);
                let lent = borrowed.map(|b| b.max_timestamp);
                match object.max(lent).max(ring) {
                    Some(greatest) => self.search(partition, greatest),
                    None => Lookup::Found(NONE),
                }
            }
        }
    }

    /// Looks for `time` in objects, in a loan and in the ring.
    fn search(&self, partition: &Partition, time: Wall) -> Lookup {
        let (from, end) = (partition.log_start, partition.readable_end());
        let trimmed = self.log.trim_point();
        let served = |e: &&RingEntry| e.lsn >= trimmed || self.cache.get(e.lsn, e.size as usize).is_some();
        let ring_from = partition.ring.from(from, end).find(served).map_or(end, |e| e.base);
        let objects = partition.objects.reaching(time, from, CANDIDATES);
        let objects: Vec<_> = objects.into_iter().filter(|o| o.base < ring_from).collect();
        let mut manifests = partition.objects.manifests_reaching(time, from, CANDIDATES);
        manifests.retain(|manifest| manifest.base < ring_from);
        let reaching = partition.borrowed.as_ref().filter(|b| b.until > from && b.max_timestamp >= time);
        let lender = reaching.and_then(|b| self.ports.peers.get(usize::from(b.from.0))).cloned();
        let loan = lender.map(|lender| InLoan { lender, committed_end: partition.committed_end });
        let batches = self.candidates(partition, time, ring_from, end);
        if manifests.is_empty() && objects.is_empty() && loan.is_none() && batches.is_empty() {
            return Lookup::Found(NONE);
        }
        let partition = partition.id;
        Lookup::Search(Box::new(Search { partition, time, from, ring_from, end, manifests, objects, loan, batches }))
    }

    fn candidates(
        &self,
        partition: &Partition,
        time: Wall,
        from: Offset,
        end: Offset,
    ) -> Vec<(RingEntry, Option<Bytes>)> {
        let mut batches = Vec::new();
        let mut next = from;
        while batches.len() < CANDIDATES {
            let Some(entry) = partition.ring.first_at_time(time, next, end) else { break };
            next = entry.last.next();
            batches.push(*entry);
        }
        batches.into_iter().map(|e| (e, self.cache.get(e.lsn, e.size as usize))).collect()
    }

    /// Looks for a time in what this shard lends.
    pub(crate) fn find_lent(&mut self, search: LentSearch) {
        let LentSearch { partition, time, from, committed_end, reply } = search;
        // What was committed since, and perhaps forgotten by the ring, is in objects that the asker does not know yet.
        let knows = |lent: &&Partition| {
            lent.committed_end <= committed_end && lent.ring.first().is_some_and(|first| first <= from)
        };
        let lent = self.lent(&partition).filter(knows);
        let Some(lent) = lent else {
            let _gone = reply.try_send(None);
            return;
        };
        let (ring_from, end) = (from, lent.high_watermark);
        let batches = self.candidates(lent, time, ring_from, end);
        let (manifests, objects, loan) = (Vec::new(), Vec::new(), None);
        let search = Search { partition, time, from, ring_from, end, manifests, objects, loan, batches };
        let (cold, events, runtime) = (self.ports.cold.clone(), self.events.clone(), self.ports.runtime.clone());
        let task = async move {
            // Whoever asked hears of a failure by the lane that closes.
            let Ok(searched) = run(search, &cold, &events, &*runtime).await else { return };
            let _gone = reply.try_send(match searched {
                Searched::Found(found) => Some(found.offset.map(|_| found)),
                Searched::Trimmed | Searched::Gone(_) => None,
            });
        };
        self.ports.runtime.spawn(Queue::Cold, "lent-offsets", Box::pin(task));
    }
}

const NONE: FoundOffset = FoundOffset { offset: None, timestamp: None, leader_epoch: None };

fn found(at: FoundTime) -> FoundOffset {
    let FoundTime { offset, timestamp, leader_epoch } = at;
    let leader_epoch = Some(leader_epoch).filter(|e| *e >= LeaderEpoch(0));
    FoundOffset { offset: Some(offset), timestamp: Some(timestamp), leader_epoch }
}

/// Whom a look-up asks.
struct Asked {
    cold: Sender<ColdRequest>,
    events: Sender<Event>,
    runtime: Rc<dyn Runtime>,
}

impl Asked {
    /// Searches; for the latest record, first for the greatest time that is known.
    async fn look_for(&self, query: OffsetQuery, search: Box<Search>) -> Result<FoundOffset, PartitionError> {
        let (partition, greatest) = (search.partition, search.time);
        let found = self.find(search).await?;
        match query {
            OffsetQuery::MaxTimestamp if found.offset.is_none() => self.latest_below(partition, greatest).await,
            _ => Ok(found),
        }
    }

    /// The first of the records with the greatest time, where nothing is as late as `above`: what was, is deleted, in a batch, an object, a
    /// loan or a manifest of which some is left. None of these knows the time of the rest, and a search by halves needs 64 look-ups at
    /// most, where reading all that is left has no bound.
    async fn latest_below(&self, partition: PartitionId, above: Wall) -> Result<FoundOffset, PartitionError> {
        let mut latest = self.at(partition, Wall(i64::MIN)).await?;
        let Some(Wall(mut at)) = latest.timestamp else { return Ok(latest) };
        let Wall(mut above) = above;
        // Mostly there is none later.
        let mut next = at.saturating_add(1);
        while next < above {
            match self.at(partition, Wall(next)).await? {
                later @ FoundOffset { timestamp: Some(Wall(time)), .. } => (latest, at) = (later, time),
                _ => above = next,
            }
            next = middle(at, above).max(at.saturating_add(1));
        }
        Ok(latest)
    }

    /// The first record at or after a time.
    async fn at(&self, partition: PartitionId, time: Wall) -> Result<FoundOffset, PartitionError> {
        match self.ask(partition, time).await? {
            Lookup::Found(found) => Ok(found),
            Lookup::Search(search) => self.find(search).await,
        }
    }

    /// Searches, and begins anew when the ring was trimmed under it, or an object compacted away: what it had is in other objects then.
    async fn find(&self, mut search: Box<Search>) -> Result<FoundOffset, PartitionError> {
        let mut gone = None;
        for tried in 1.. {
            let (partition, time) = (search.partition, search.time);
            match run(*search, &self.cold, &self.events, &*self.runtime).await? {
                Searched::Found(found) => return Ok(found),
                // One that the partition still names after it was asked again is lost, and stays so.
                Searched::Gone(object) if gone.replace(object) == Some(object) => break,
                Searched::Gone(_) | Searched::Trimmed => {}
            }
            if tried == TRIES {
                break;
            }
            match self.ask(partition, time).await? {
                Lookup::Found(found) => return Ok(found),
                Lookup::Search(anew) => search = anew,
            }
        }
        Err(PartitionError::Storage)
    }

    /// Asks the shard what the partition is like now.
    async fn ask(&self, partition: PartitionId, time: Wall) -> Result<Lookup, PartitionError> {
        let (tell, told) = flume::bounded(1);
        let _gone = self.events.try_send(Event::LookUp(LookUp { partition, time, tell }));
        told.recv_async().await.unwrap_or(Err(PartitionError::Unavailable))
    }
}

/// Between two times.
fn middle(one: i64, other: i64) -> i64 {
    let middle = (i128::from(one) + i128::from(other)).div_euclid(2);
    i64::try_from(middle).unwrap_or(one)
}

/// What a search came to.
enum Searched {
    Found(FoundOffset),
    /// The ring was trimmed under it, here or at the lender, who perhaps lends no more.
    Trimmed,
    /// An object is not there: compaction has put another in its place, or it is lost.
    Gone(ObjectId),
}

async fn run(
    search: Search,
    cold: &Sender<ColdRequest>,
    events: &Sender<Event>,
    runtime: &dyn Runtime,
) -> Result<Searched, PartitionError> {
    match in_store(&search, cold).await {
        Ok(Some(at)) => return Ok(Searched::Found(found(at))),
        Ok(None) => {}
        Err(ColdError::Gone(object)) => return Ok(Searched::Gone(object)),
        Err(ColdError::Storage(_)) => return Err(PartitionError::Storage),
    }
    if let Some(loan) = &search.loan {
        match in_loan(&search, loan).await? {
            None => return Ok(Searched::Trimmed),
            Some(Some(at)) if at.timestamp >= Some(search.time) => return Ok(Searched::Found(at)),
            Some(_) => {}
        }
    }
    let missing: Vec<RingEntry> = search.batches.iter().filter(|(_, b)| b.is_none()).map(|(e, _)| *e).collect();
    let Some(read) = in_ring(missing, events).await? else { return Ok(Searched::Trimmed) };
    let mut read = read.into_iter();
    for (_, bytes) in search.batches {
        let bytes = bytes.or_else(|| read.next()).ok_or(PartitionError::Storage)?;
        if let Some(at) = first_record_at(&bytes, search.time, search.from) {
            return Ok(Searched::Found(found(at)));
        }
        // A batch may unfold to many megabytes, and heads may lie sixteen times.
        runtime.breathe().await;
    }
    Ok(Searched::Found(NONE))
}

/// Asks the shard that lends what lies between objects and ring; the outer `None` when it lends no more.
async fn in_loan(search: &Search, loan: &InLoan) -> Result<Option<Option<FoundOffset>>, PartitionError> {
    let (reply, told) = flume::bounded(1);
    let InLoan { lender, committed_end } = loan;
    let (partition, time, committed_end) = (search.partition, search.time, *committed_end);
    let from = search.from.max(committed_end);
    lender.send(Request::FindLent(Box::new(LentSearch { partition, time, from, committed_end, reply })));
    told.recv_async().await.map_err(|_dropped| PartitionError::Storage)
}

/// Reads `batches` through the shard, which keeps the budget of ring reads and holds the trim point below them; `None` when
/// it had passed them already.
async fn in_ring(batches: Vec<RingEntry>, events: &Sender<Event>) -> Result<Option<Vec<Bytes>>, PartitionError> {
    if batches.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let (tell, told) = flume::bounded(1);
    let done = Box::new(move |result| {
        let _gone = tell.try_send(result);
    });
    let _gone = events.try_send(Event::ReadRing(RingRead::new(batches, done)));
    match told.recv_async().await {
        Ok(Ok(batches)) => Ok(Some(batches)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        _ => Err(PartitionError::Storage),
    }
}

/// Searches what manifests list, then the other objects.
async fn in_store(search: &Search, cold: &Sender<ColdRequest>) -> Result<Option<FoundTime>, ColdError> {
    for manifest in &search.manifests {
        let entries = listed(search.partition, manifest, cold).await?;
        let reaches = |entry: &&Rc<CommittedObject>| {
            entry.last >= search.from && entry.base < search.ring_from && entry.max_timestamp >= search.time
        };
        let candidates: Vec<Rc<CommittedObject>> = entries.iter().filter(reaches).cloned().collect();
        for some in candidates.chunks(CANDIDATES) {
            if let Some(found) = in_objects(search, some.to_vec(), cold).await? {
                return Ok(Some(found));
            }
        }
    }
    match search.objects.is_empty() {
        true => Ok(None),
        false => in_objects(search, search.objects.clone(), cold).await,
    }
}

async fn listed(
    partition: PartitionId,
    manifest: &Rc<ManifestRef>,
    cold: &Sender<ColdRequest>,
) -> Result<Entries, ColdError> {
    let (tell, told) = flume::bounded(1);
    let done = Box::new(move |found| {
        let _gone = tell.try_send(found);
    });
    let manifest = manifest.clone();
    let _gone = cold.try_send(ColdRequest::Manifest(ColdManifest { partition, manifest, done }));
    told.recv_async().await.unwrap_or_else(|_| Err(ColdError::Storage("the cold reader is gone".into())))
}

async fn in_objects(
    search: &Search,
    objects: Vec<Rc<CommittedObject>>,
    cold: &Sender<ColdRequest>,
) -> Result<Option<FoundTime>, ColdError> {
    let (tell, told) = flume::bounded(1);
    let done = Box::new(move |result| {
        let _gone = tell.try_send(result);
    });
    let find = ColdFindTime {
        conn: LOOKUPS,
        partition: search.partition,
        objects,
        time: search.time,
        from: search.from,
        up_to: search.ring_from.min(search.end),
        done,
    };
    let _gone = cold.try_send(ColdRequest::FindTime(find));
    let found =
        told.recv_async().await.unwrap_or_else(|_| Err(ColdError::Storage("the cold reader is gone".into())))?;
    Ok(found.map(|f| FoundTime { offset: f.offset, timestamp: f.timestamp, leader_epoch: f.leader_epoch }))
}
