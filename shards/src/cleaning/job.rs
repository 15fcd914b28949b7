//! The work itself: cleans each partition that is due once, the dirtiest first: reads, writes and commits.
//!
//! A task of the queue `Janitor` on the shard's core; records are unpacked elsewhere. Parts are written anew from the lowest up, for a
//! tombstone may go only when nothing older of its key is left below; the dirty point moves after all of them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use thalweg_objectstore::format::{BlockEntry, BlockIndex, ObjectEncoder, PartitionProperties, Properties};
use thalweg_record::{Batch, Offset, PartitionId, failpoint};

use super::{
    CleaningPorts,
    errand::{self, Lost},
    filter::{Rules, Unfit, index},
    keys::KeyMap,
    pipeline::{Ended, Inquiry, Subject},
    plan::{self, Dirt},
    run::{Run, sift, walk},
};
use crate::{
    cold::fetch::{Fetcher, fetch_about},
    event::Event,
    meta::{CommitRange, CommittedObject, CompactedRange, Compaction, CompactionOutcome, MetaRequest, ObjectId},
    meters::ShardMeters,
    msg::ProducerEntry,
    rewrite::{Pace, RewriteFailure, Rewriter, about, blocks_of, committed, read_run, retry, runs, sealed, stopping},
    work_room::Taken,
};

/// No smaller map is worth a round, where there is too little memory for all keys.
const LEAST_MAP_BYTES: u64 = 1 << 20;
/// Objects of which index and properties are remembered: partitions lie in the same uploads.
const KNOWN_OBJECTS: usize = 4;
/// Bytes that are written into an object between two breaths.
const BREATH_BYTES: usize = 256 << 10;

/// Where an object has what, and what it says of it.
type Told = Rc<(BlockIndex, Properties)>;

/// All that the work needs.
pub(super) struct Job {
    pub rewriter: Rewriter,
    pub ports: CleaningPorts,
    pub meters: Rc<ShardMeters>,
    /// What the newest few objects tell, that were looked at.
    pub known: RefCell<VecDeque<(ObjectId, Told)>>,
}

/// Why a round did not come to its end.
#[derive(Debug)]
enum Stopped {
    /// A batch cannot be cleaned; it does not lie behind this offset.
    Unfit(Offset, Unfit),
    Failed(RewriteFailure),
}

impl From<RewriteFailure> for Stopped {
    fn from(failure: RewriteFailure) -> Stopped {
        Stopped::Failed(failure)
    }
}

/// What a round did.
#[derive(Default, Debug)]
struct Tally {
    read_bytes: u64,
    written_bytes: u64,
    records_before: u64,
    records_after: u64,
    objects: usize,
}

/// Comes to an end, however fast others become due: then other settings act, and what failed is left alone for a while.
pub(super) async fn run(job: Job) {
    let mut ended = Ended::default();
    for dirt in survey(&job).await.unwrap_or_default() {
        round(&job, &dirt, &mut ended).await;
        if ended.fatal.is_some() {
            break;
        }
    }
    let _gone = job.rewriter.events.try_send(Event::CleaningEnded(ended));
}

/// The partitions that are due, the dirtiest first.
async fn survey(job: &Job) -> Result<Vec<Dirt>, RewriteFailure> {
    let (mut all, mut slot) = (Vec::new(), Some(0));
    while let Some(from) = slot {
        let page = job.rewriter.inquire(|reply| Event::CleaningInquiry(Inquiry::Survey { from, reply })).await?;
        all.extend(page.dirt);
        slot = page.next;
    }
    job.meters.cleaner_dirty_ratio.set(all.iter().map(Dirt::ratio).fold(0.0, f64::max));
    Ok(plan::due(all))
}

/// A round of one partition, if there is memory for it now, and what is to be told of it.
async fn round(job: &Job, dirt: &Dirt, ended: &mut Ended) {
    let partition = dirt.partition;
    let subject = job.rewriter.inquire(|reply| Event::CleaningInquiry(Inquiry::Describe { partition, reply })).await;
    let Ok(Some(mut subject)) = subject else { return };
    subject.parts.retain(|part| part.last < dirt.end);
    let began = job.rewriter.runtime.mono();
    let config = &job.ports.config;
    let pace = Pace::new(config.bytes_per_second, config.usual_backlog, dirt.dirty_bytes);
    let cleaning = Cleaning { job, partition, fetcher: job.rewriter.fetcher(), pace, subject: &subject };
    let outcome = match cleaning.dirty(dirt).await {
        Ok(dirty) => {
            let bytes = KeyMap::bytes_for(dirty.records, job.ports.config.load_factor);
            // Other shards are at work: later, and not at once, for all that is dirty has been looked up.
            let Some((_map, map_bytes)) = map_memory(job, bytes.min(job.ports.config.dedupe_bytes)) else {
                ended.failed.push(partition);
                return;
            };
            cleaning.run(dirty, map_bytes).await
        }
        Err(stopped) => Err(stopped),
    };
    match outcome {
        Ok((to, keys, tally)) => {
            let took = job.rewriter.runtime.mono().since(began);
            job.meters.cleaner_rounds.increment(1);
            job.meters.cleaner_seconds.record(took.as_secs_f64());
            tracing::info!(
                shard = job.rewriter.shard.0,
                topic = &*subject.described.topic_name,
                partition = partition.index,
                from = dirt.from.0,
                to = to.0,
                keys,
                read_bytes = tally.read_bytes,
                written_bytes = tally.written_bytes,
                objects = tally.objects,
                records_before = tally.records_before,
                records_after = tally.records_after,
                ms = took.as_millis() as u64,
                "log cleaned"
            );
        }
        Err(Stopped::Unfit(offset, Unfit(why))) => {
            tracing::error!(
                shard = job.rewriter.shard.0,
                topic = &*subject.described.topic_name,
                partition = partition.index,
                why,
                "the log of this partition cannot be cleaned; it is left as it is"
            );
            ended.unfit.push((partition, offset));
        }
        Err(Stopped::Failed(RewriteFailure::Fatal(why))) => ended.fatal = Some(why),
        Err(Stopped::Failed(failure)) => {
            if failure != RewriteFailure::Dropped {
                tracing::warn!(
                    shard = job.rewriter.shard.0,
                    topic = &*subject.described.topic_name,
                    partition = partition.index,
                    ?failure,
                    "cleaning failed; it is tried again"
                );
                job.meters.cleaner_errors.increment(1);
            }
            ended.failed.push(partition);
        }
    }
}

/// Memory for keys, less than is wanted if other shards have most of it: a round may go as far as it suffices.
fn map_memory(job: &Job, wanted: u64) -> Option<(Taken, u64)> {
    let mut bytes = wanted;
    loop {
        if let Some(taken) = job.ports.maps.take(bytes) {
            return Some((taken, bytes));
        }
        bytes /= 2;
        if bytes < LEAST_MAP_BYTES {
            return None;
        }
    }
}

/// A round of one partition.
struct Cleaning<'a> {
    job: &'a Job,
    partition: PartitionId,
    fetcher: Fetcher,
    pace: Pace,
    subject: &'a Subject,
}

/// What no round has seen of a partition.
struct Dirty<'a> {
    from: Offset,
    /// As many keys at most.
    records: u64,
    parts: Vec<(&'a Rc<CommittedObject>, Vec<BlockEntry>)>,
}

impl Cleaning<'_> {
    /// What no round has seen, as far as one round can go.
    async fn dirty(&self, dirt: &Dirt) -> Result<Dirty<'_>, Stopped> {
        let config = &self.job.ports.config;
        let most = KeyMap::keys_in(config.dedupe_bytes, config.load_factor);
        let mut dirty = Dirty { from: dirt.from, records: 0, parts: Vec::new() };
        for part in self.subject.parts.iter().filter(|part| part.last >= dirt.from) {
            let (_, mut blocks) = self.look(part).await?;
            blocks.drain(..blocks.partition_point(|block| block.last < dirt.from));
            dirty.records += blocks.iter().map(|block| records_from(block, dirt.from)).sum::<u64>();
            dirty.parts.push((part, blocks));
            if dirty.records > most {
                break;
            }
        }
        Ok(dirty)
    }

    /// Answers how far it came, how many keys there were, and what it took.
    async fn run(&self, dirty: Dirty<'_>, map_bytes: u64) -> Result<(Offset, usize, Tally), Stopped> {
        let mut tally = Tally::default();
        let keys = self.keys(dirty, map_bytes, &mut tally).await?;
        let (end, count) = (keys.end(), keys.len());
        let rules = Arc::new(Rules {
            keys,
            now: self.job.rewriter.runtime.wall(),
            delete_retention_ms: i64::try_from(self.subject.settings.delete_retention_ms).unwrap_or(i64::MAX),
            producers: self.subject.producers.clone(),
        });
        let early = early_point();
        if early {
            self.move_point(end).await?;
        }
        let reached = self.subject.parts.partition_point(|part| part.base < end);
        for group in plan::groups(&self.subject.parts[..reached], self.job.ports.config.output_bytes) {
            self.group(group, &rules, &mut tally).await?;
        }
        if !early {
            self.move_point(end).await?;
        }
        Ok((end, count, tally))
    }

    /// Reads what is dirty into a map of keys, as far as that goes.
    async fn keys(&self, dirty: Dirty<'_>, map_bytes: u64, tally: &mut Tally) -> Result<KeyMap, Stopped> {
        let mut keys = KeyMap::new(map_bytes, self.job.ports.config.load_factor, dirty.from);
        for (part, blocks) in dirty.parts {
            for run in runs(&blocks) {
                let Run { last, mut bytes, .. } = self.read(part, run, tally).await?;
                let (taken, back) = self
                    .elsewhere(last, move || {
                        let taken = walk(&mut bytes, |_, batch| index(&mut keys, batch));
                        (taken, keys)
                    })
                    .await?;
                keys = back;
                if !taken.map_err(|unfit| Stopped::Unfit(last, unfit))? {
                    return Ok(keys);
                }
            }
            keys.reached(part.last.next());
        }
        Ok(keys)
    }

    /// Writes parts anew, if something in them goes or there is more than one.
    async fn group(&self, group: &[Rc<CommittedObject>], rules: &Arc<Rules>, tally: &mut Tally) -> Result<(), Stopped> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(()) };
        // For this object alone: a round of a long log takes hours at its pace, and compaction has its turns in between.
        let _room = self.job.rewriter.room(&self.job.ports.room, plan::bytes_of(group)).await?;
        let (base, last) = (first.base, last.last);
        let mut encoder = ObjectEncoder::new(0, self.job.ports.config.block_bytes);
        let mut told: BTreeMap<ObjectId, PartitionProperties> = BTreeMap::new();
        let (mut next, mut changed) = (base, group.len() > 1);
        for part in group {
            let (properties, blocks) = self.look(part).await?;
            told.insert(part.object, properties);
            for run in runs(&blocks) {
                let run = self.read(part, run, tally).await?;
                let rules = rules.clone();
                let at = run.last;
                let sifted = self.elsewhere(at, move || sift(&rules, run, last)).await?;
                let sifted = sifted.map_err(|unfit| Stopped::Unfit(at, unfit))?;
                changed |= sifted.changed;
                tally.records_before += sifted.records_before;
                tally.records_after += sifted.records_after;
                next = self.write(&mut encoder, sifted.kept, next).await?;
            }
        }
        failpoint::pass("cleaning-read");
        if !changed {
            return Ok(());
        }
        let object = self.job.rewriter.reserve().await?;
        failpoint::pass("cleaning-reserved");
        let mut about = about(self.partition, group, &self.subject.described, |object| told.get(&object));
        // The log has no end at which retention would take those that are forgotten.
        about.producers.retain(|producer| self.subject.producers.contains_key(&producer.producer_id));
        let producers = about.producers.iter().map(ProducerEntry::from).collect();
        let mut properties = self.job.rewriter.properties();
        properties.partitions.push(about);
        encoder.name(object.0);
        let encoded = sealed(encoder.finish(&properties)).map_err(retry)?;
        let [made] = encoded.ranges[..] else { return Err(retry("nothing was left of a part".into()).into()) };
        if (made.base, made.last) != (base, last) {
            return Err(retry("what was cleaned is not what was to be".into()).into());
        }
        let object_bytes = encoded.size_bytes;
        let (key, put) = self.job.rewriter.put(object, encoded.parts, &self.pace).await;
        put?;
        failpoint::pass("cleaning-put");
        let range = CommitRange {
            partition: self.partition,
            base,
            last,
            size_bytes: made.size_bytes,
            max_timestamp: made.max_timestamp,
            epochs: Vec::new(),
            producers,
        };
        let parts = group.iter().map(|part| (part.object, part.base, part.last)).collect();
        let made = Compaction { object, key, object_bytes, ranges: vec![CompactedRange { range, parts }] };
        self.commit(made, first).await?;
        self.job.meters.cleaner_written_bytes.increment(object_bytes);
        tally.written_bytes += object_bytes;
        tally.objects += 1;
        Ok(())
    }

    /// Puts the new object in the place of the parts, and sends readers there.
    async fn commit(&self, made: Compaction, first: &CommittedObject) -> Result<(), Stopped> {
        let rewriter = &self.job.rewriter;
        let (shard, compaction) = (rewriter.shard, Box::new(made.clone()));
        let failure = match rewriter.ask(|reply| MetaRequest::Compact { shard, compaction, reply }).await? {
            CompactionOutcome::Committed(level) => {
                failpoint::pass("cleaning-committed");
                let object = committed(&made, &made.ranges[0], first.epoch, level);
                rewriter.events.try_send(Event::PartCleaned(self.partition, object)).map_err(stopping)?;
                return Ok(());
            }
            CompactionOutcome::Changed(_) => RewriteFailure::Dropped,
            CompactionOutcome::Unreserved => retry("the object's reservation was taken away".into()),
            CompactionOutcome::Fenced => RewriteFailure::Fatal("another broker has fenced this one's epoch".into()),
        };
        Err(failure.into())
    }

    /// Records how far the partition is clean.
    async fn move_point(&self, to: Offset) -> Result<(), Stopped> {
        let (rewriter, partition, from) = (&self.job.rewriter, self.partition, self.subject.cleaned);
        let moved = rewriter.ask(|reply| MetaRequest::MoveDirtyPoint { partition, from, to, reply }).await?;
        if !moved {
            return Err(RewriteFailure::Dropped.into());
        }
        failpoint::pass("cleaning-point");
        rewriter.events.try_send(Event::Cleaned(partition, to)).map_err(stopping)?;
        Ok(())
    }

    /// What an object says of the partition, and the blocks of its part.
    async fn look(&self, part: &CommittedObject) -> Result<(PartitionProperties, Vec<BlockEntry>), RewriteFailure> {
        let unreadable = |why: String| RewriteFailure::Unreadable(vec![part.object], why);
        let known =
            self.job.known.borrow().iter().find(|(object, _)| *object == part.object).map(|(_, known)| known.clone());
        let known = match known {
            Some(known) => known,
            None => {
                let about = fetch_about(&self.fetcher, part).await;
                let about = Rc::new(about.map_err(|e| unreadable(e.to_string()))?);
                let mut known = self.job.known.borrow_mut();
                known.truncate(KNOWN_OBJECTS - 1);
                known.push_front((part.object, about.clone()));
                about
            }
        };
        let (index, properties) = &*known;
        let own = properties.partitions.iter().find(|about| about.partition == self.partition);
        let own = own.ok_or_else(|| unreadable(format!("object {} says nothing of {}", part.key, self.partition)))?;
        Ok((own.clone(), blocks_of(index, self.partition, part).map_err(unreadable)?))
    }

    async fn read(
        &self,
        part: &CommittedObject,
        blocks: &[BlockEntry],
        tally: &mut Tally,
    ) -> Result<Run, RewriteFailure> {
        let bytes = read_run(&self.fetcher, &self.pace, part, blocks).await;
        let bytes = bytes.map_err(|why| RewriteFailure::Unreadable(vec![part.object], why))?;
        tally.read_bytes += bytes.len() as u64;
        self.job.meters.cleaner_read_bytes.increment(bytes.len() as u64);
        let (first, last) = (blocks.first(), blocks.last());
        let (base, last) = (first.map_or(part.base, |b| b.base), last.map_or(part.last, |b| b.last));
        Ok(Run { base, last, bytes })
    }

    /// Has long work done where no client waits for it.
    async fn elsewhere<T: Send + 'static>(
        &self,
        at: Offset,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        errand::send(&self.job.ports.errands, work).await.map_err(|lost| match lost {
            Lost::Stopping => stopping(()).into(),
            Lost::Unfit(unfit) => Stopped::Unfit(at, unfit),
        })
    }

    /// Adds batches to an object; answers the offset behind the last of them.
    async fn write(
        &self,
        encoder: &mut ObjectEncoder,
        batches: Vec<Bytes>,
        mut next: Offset,
    ) -> Result<Offset, RewriteFailure> {
        let mut since = 0;
        for batch in batches {
            let last = Batch::split_from(&mut batch.clone()).map_err(|e| retry(e.to_string()))?.head.last_offset();
            since += batch.len();
            encoder.push_behind(self.partition, next, batch).map_err(|e| retry(e.to_string()))?;
            next = last.next();
            if since > BREATH_BYTES {
                since = 0;
                self.job.rewriter.runtime.breathe().await;
            }
        }
        Ok(next)
    }
}

/// The most records of a block from `from` on.
fn records_from(block: &BlockEntry, from: Offset) -> u64 {
    let offsets = block.last.next().0.saturating_sub(block.base.max(from).0);
    block.records.min(u64::try_from(offsets).unwrap_or(0))
}

/// A bug to be found: the dirty point moves before anything is written anew.
fn early_point() -> bool {
    #[cfg(feature = "planted-bugs")]
    if thalweg_wal::planted(thalweg_wal::Bug::DirtyPointEarly) {
        return true;
    }
    false
}
