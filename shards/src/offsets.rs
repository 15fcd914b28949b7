//! Offsets by time and by special value (ListOffsets), over the three tiers.
//!
//! Special values are answered in the turn. A time is looked up in a task of the cold queue: first in the objects that
//! reach it, then in the ring. Heads may lie about their greatest timestamp, so a miss inside a batch goes on to the next.

use std::{io, iter, rc::Rc};

use bytes::Bytes;
use flume::Sender;
use thalweg_record::{LeaderEpoch, Offset, PartitionId, Wall};

use crate::{
    cold::{ColdError, ColdFindTime, ColdManifest, ColdRequest, Entries},
    event::Event,
    mailbox::ShardLane,
    meta::{CommittedObject, ManifestRef, ObjectId},
    moves::{LentSearch, Sought},
    msg::{ConnId, FoundOffset, OffsetQuery, OffsetsRequest, PartitionError, Reply, Request},
    partition::{Partition, RingEntry, RingIndex},
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
    /// The greatest time is looked for: the manifest that the log start cuts in two, and the greatest time of all behind it. Only the
    /// manifest knows which times lie below the log start.
    cut: Option<(Rc<ManifestRef>, Option<Wall>)>,
    /// Lists of older objects of which some reach the time.
    manifests: Vec<Rc<ManifestRef>>,
    objects: Vec<Rc<CommittedObject>>,
    /// Whoever lends what lies between objects and ring, when something there may be as late.
    loan: Option<InLoan>,
    /// Candidate batches in the ring, in order, with their bytes where memory has them.
    batches: Vec<(RingEntry, Option<Bytes>)>,
    /// The time to look for when nothing is found, for the greatest one may be that of a deleted record.
    otherwise: Option<Wall>,
}

/// Where to look in a loan.
struct InLoan {
    lender: ShardLane,
    sought: Sought,
    committed_end: Offset,
}

enum Lookup {
    Found(FoundOffset),
    Search(Box<Search>),
}

/// A look-up that begins anew, and whom to tell what the partition is like now.
pub(crate) struct LookUp {
    partition: PartitionId,
    query: OffsetQuery,
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
        let (cold, events) = (self.ports.cold.clone(), self.events.clone());
        let task = async move {
            let mut found = Vec::with_capacity(lookups.len());
            for (query, lookup) in lookups {
                found.push(match lookup {
                    Err(error) => Err(error),
                    Ok(Lookup::Found(offset)) => Ok(offset),
                    Ok(Lookup::Search(search)) => look_for(query, search, &cold, &events, &*runtime).await,
                });
            }
            reply.send(Reply::Offsets(found));
        };
        self.ports.runtime.spawn(Queue::Cold, "offsets", Box::pin(task));
    }

    /// Tells a look-up under way what the partition is like now.
    pub(crate) fn look_up_again(&self, again: LookUp) {
        let LookUp { partition, query, tell } = again;
        let _gone = tell.try_send(self.look_up_at(partition, query, None));
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
            OffsetQuery::Time(time) => self.search(partition, time, Sought::Time(time)),
            OffsetQuery::MaxTimestamp => {
                let object = partition.objects.max_timestamp(partition.log_start);
                let from = partition.committed_end.max(partition.log_start);
                let ring = partition.ring.max_timestamp(from, partition.readable_end()).map(|e| e.max_timestamp);
                let borrowed = partition.borrowed.as_ref().filter(|b| b.until > partition.log_start);
                let lent = borrowed.map(|b| b.max_timestamp);
                if lent.is_some() && partition.log_start > partition.committed_end {
                    // Some of the loan is deleted: its lender knows what is the latest of the rest. Objects are deleted altogether.
                    return self.search(partition, ring.unwrap_or(Wall(i64::MIN)), Sought::MaxTimestamp);
                }
                let newer = lent.max(ring);
                let Some(greatest) = object.max(newer) else { return Lookup::Found(NONE) };
                let Lookup::Search(search) = self.search(partition, greatest, Sought::Time(greatest)) else {
                    return Lookup::Found(NONE);
                };
                let cut = partition.objects.cut_by(partition.log_start);
                let cut = cut.map(|(manifest, rest)| (manifest, rest.max(newer)));
                let otherwise = latest_behind_start(partition).filter(|rest| *rest < greatest);
                Lookup::Search(Box::new(Search { cut, otherwise, ..*search }))
            }
        }
    }

    /// Looks for `time` in objects and ring, and for what is `sought` in a loan, as far as that is as late.
    fn search(&self, partition: &Partition, time: Wall, sought: Sought) -> Lookup {
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
        let loan = lender.map(|lender| InLoan { lender, sought, committed_end: partition.committed_end });
        let batches = self.candidates(partition, time, ring_from, end);
        if manifests.is_empty() && objects.is_empty() && loan.is_none() && batches.is_empty() {
            return Lookup::Found(NONE);
        }
        Lookup::Search(Box::new(Search {
            partition: partition.id,
            time,
            from,
            ring_from,
            end,
            cut: None,
            otherwise: None,
            manifests,
            objects,
            loan,
            batches,
        }))
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

    /// Looks for a time, or for the latest record, in what this shard lends.
    pub(crate) fn find_lent(&mut self, search: LentSearch) {
        let LentSearch { partition, sought, from, committed_end, reply } = search;
        // What was committed since, and perhaps forgotten by the ring, is in objects that the asker does not know yet.
        let knows = |lent: &&Partition| {
            lent.committed_end <= committed_end && lent.ring.first().is_some_and(|first| first <= from)
        };
        let lent = self.lent(&partition).filter(knows);
        let Some(lent) = lent else {
            let _gone = reply.try_send(None);
            return;
        };
        let (begin, end) = (from, lent.high_watermark);
        let time = match sought {
            Sought::Time(time) => time,
            Sought::MaxTimestamp => lent.ring.max_timestamp(begin, end).map_or(Wall(i64::MAX), |e| e.max_timestamp),
        };
        let search = |time| Search {
            partition,
            time,
            from,
            ring_from: begin,
            end,
            cut: None,
            otherwise: None,
            manifests: Vec::new(),
            objects: Vec::new(),
            loan: None,
            batches: self.candidates(lent, time, begin, end),
        };
        let rest = latest_behind(&lent.ring, begin, end).filter(|_| matches!(sought, Sought::MaxTimestamp));
        let (first, otherwise) = (search(time), rest.filter(|rest| *rest < time).map(search));
        let (cold, events, runtime) = (self.ports.cold.clone(), self.events.clone(), self.ports.runtime.clone());
        let task = async move {
            let mut answer = None;
            for search in iter::once(first).chain(otherwise) {
                // Whoever asked hears of a failure by the lane that closes.
                let Ok(searched) = run(search, &cold, &events, &*runtime).await else { return };
                answer = match searched {
                    Searched::Found(found) => Some(found.offset.map(|_| found)),
                    Searched::Trimmed | Searched::Gone(_) => None,
                };
                if !matches!(answer, Some(None)) {
                    break;
                }
            }
            let _gone = reply.try_send(answer);
        };
        self.ports.runtime.spawn(Queue::Cold, "lent-offsets", Box::pin(task));
    }
}

const NONE: FoundOffset = FoundOffset { offset: None, timestamp: None, leader_epoch: None };

/// The greatest timestamp behind the batch in the ring that `from` lies inside of, if it does: that batch's may be of a deleted record.
fn latest_behind(ring: &RingIndex, from: Offset, end: Offset) -> Option<Wall> {
    let first = ring.from(from, end).next().filter(|entry| entry.base < from)?;
    Some(ring.max_timestamp(first.last.next(), end).map_or(Wall(i64::MIN), |entry| entry.max_timestamp))
}

/// As [`latest_behind`], of the object or the batch that the log start lies inside of.
fn latest_behind_start(partition: &Partition) -> Option<Wall> {
    let (start, end) = (partition.log_start, partition.readable_end());
    if start >= partition.committed_end {
        return latest_behind(&partition.ring, start, end);
    }
    let first = partition.objects.iter().next().filter(|object| object.base < start)?;
    let object = partition.objects.max_timestamp(first.last.next());
    let ring = partition.ring.max_timestamp(partition.committed_end, end).map(|entry| entry.max_timestamp);
    let lent = partition.borrowed.as_ref().map(|borrowed| borrowed.max_timestamp);
    Some(object.max(lent).max(ring).unwrap_or(Wall(i64::MIN)))
}

fn found(at: FoundTime) -> FoundOffset {
    let FoundTime { offset, timestamp, leader_epoch } = at;
    let leader_epoch = Some(leader_epoch).filter(|e| *e >= LeaderEpoch(0));
    FoundOffset { offset: Some(offset), timestamp: Some(timestamp), leader_epoch }
}

/// Searches, and begins anew when the ring was trimmed under it, or an object compacted away: what it had is in other objects then.
async fn look_for(
    mut query: OffsetQuery,
    mut search: Box<Search>,
    cold: &Sender<ColdRequest>,
    events: &Sender<Event>,
    runtime: &dyn Runtime,
) -> Result<FoundOffset, PartitionError> {
    let (mut gone, mut otherwise) = (None, None);
    for tried in 1.. {
        let (partition, time) = (search.partition, search.time);
        otherwise = search.otherwise.take().or(otherwise);
        let listed = latest_listed(&mut search, cold).await?;
        if let Some((latest, rest)) = listed {
            otherwise = Some(rest).filter(|rest| *rest < latest);
        }
        match listed.filter(|(latest, _)| *latest != time) {
            Some((latest, _)) => query = OffsetQuery::Time(latest),
            None => match run(*search, cold, events, runtime).await? {
                Searched::Found(found) => match otherwise.take().filter(|_| found.offset.is_none()) {
                    Some(rest) => query = OffsetQuery::Time(rest),
                    None => return Ok(found),
                },
                // One that the partition still names after it was asked again is lost, and stays so.
                Searched::Gone(object) if gone.replace(object) == Some(object) => break,
                Searched::Gone(_) | Searched::Trimmed => {}
            },
        }
        if tried == TRIES {
            break;
        }
        let (tell, told) = flume::bounded(1);
        let _gone = events.try_send(Event::LookUp(LookUp { partition, query, tell }));
        match told.recv_async().await.unwrap_or(Err(PartitionError::Unavailable))? {
            Lookup::Found(found) => return Ok(found),
            Lookup::Search(anew) => search = anew,
        }
    }
    Err(PartitionError::Storage)
}

/// Where the log start cuts a manifest: the greatest time of what lies behind it, and of that what no log start lies inside of, for the
/// greatest may be that of a deleted record.
async fn latest_listed(
    search: &mut Search,
    cold: &Sender<ColdRequest>,
) -> Result<Option<(Wall, Wall)>, PartitionError> {
    let Some((manifest, newer)) = search.cut.take() else { return Ok(None) };
    let entries = match listed(search.partition, &manifest, cold).await {
        Ok(entries) => entries,
        // The log start has passed it: the search finds that out.
        Err(ColdError::Gone(_)) => return Ok(None),
        Err(ColdError::Storage(_)) => return Err(PartitionError::Storage),
    };
    let latest = |live: &dyn Fn(&CommittedObject) -> bool| {
        entries.iter().filter(|entry| live(entry)).map(|entry| entry.max_timestamp).max().max(newer)
    };
    let whole = latest(&|entry| entry.base >= search.from).unwrap_or(Wall(i64::MIN));
    Ok(latest(&|entry| entry.last >= search.from).map(|left| (left, whole)))
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
    let InLoan { lender, sought, committed_end } = loan;
    let (partition, sought, committed_end) = (search.partition, *sought, *committed_end);
    let from = search.from.max(committed_end);
    lender.send(Request::FindLent(Box::new(LentSearch { partition, sought, from, committed_end, reply })));
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
