//! The work itself: looks for what is to be done, reads, writes and commits, one object after the other, until nothing is left.
//!
//! A task of the queue `Janitor` on the shard's core. It never touches the shard's state: it asks in pages, and what came of it goes
//! back as events. Killed at any step it leaves the old objects in force, or the new one; what it had put in between is an orphan of
//! its reservation.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use thalweg_objectstore::format::BlockEntry;
use thalweg_record::{Offset, PartitionId, failpoint};

use super::{
    CompactionPorts,
    output::{self, Head, Input, Unfit},
    pipeline::Inquiry,
    plan::{self, Field, Kind, Plan},
};
use crate::{
    cold::fetch::{Fetcher, fetch_about},
    event::Event,
    meta::{CommittedObject, Compaction, CompactionOutcome, MetaRequest, ObjectId},
    meters::ShardMeters,
    rewrite::{Described, Pace, RewriteFailure, Rewriter, blocks_of, committed, read_run, retry, runs, stopping},
    runtime::Queue,
    work_room::Taken,
};

/// After this long it begins anew, so that altered settings act, and what was left out as changing is looked at again.
const TURN: Duration = Duration::from_secs(60);
/// Partitions described, or given their new object, in one turn of the shard.
const PARTITIONS_AT_ONCE: usize = 256;

/// All that the work needs.
pub(super) struct Job {
    pub rewriter: Rewriter,
    pub ports: CompactionPorts,
    pub meters: Rc<ShardMeters>,
    /// Objects that did not read right not long ago.
    pub avoid: Rc<BTreeSet<ObjectId>>,
    /// The id that was reserved last.
    #[cfg(feature = "planted-bugs")]
    pub used: Rc<std::cell::Cell<Option<ObjectId>>>,
}

/// What is left to do at the end of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    Nothing,
    /// The turn was over before.
    More,
}

/// Works until nothing is left to do, its turn is over, or something stands against it.
pub(super) async fn run(job: Job) {
    let result = work(&job).await;
    let _gone = job.rewriter.events.try_send(Event::CompactionEnded(result));
}

async fn work(job: &Job) -> Result<Left, RewriteFailure> {
    // Those that change faster than they are copied are left to the next time, and stand in nobody's way meanwhile.
    let mut changing: BTreeSet<PartitionId> = BTreeSet::new();
    let (mut committed, mut kept) = (false, None::<Taken>);
    let (start, mut left) = (job.rewriter.runtime.mono(), Left::More);
    // Who has waited for room makes use of it, however long that took.
    while kept.is_some() || job.rewriter.runtime.mono().since(start) < TURN {
        let field = survey(job, &changing).await?;
        let waiting = field.waiting_bytes;
        job.meters.compaction_waiting_bytes.set(waiting as f64);
        let Some(plan) = plan::plan(&job.ports.config, field) else {
            left = Left::Nothing;
            break;
        };
        let Some(_room) =
            kept.take().filter(|kept| kept.bytes() >= plan.bytes()).or_else(|| job.ports.room.take(plan.bytes()))
        else {
            // Others are at work. When there is room its inputs may be others: it is planned anew.
            kept = Some(job.rewriter.room(&job.ports.room, plan.bytes()).await?);
            continue;
        };
        let began = job.rewriter.runtime.mono();
        let config = &job.ports.config;
        let pace = Rc::new(Pace::new(config.bytes_per_second, config.usual_backlog(), waiting));
        match compact(job, &plan, &pace).await? {
            Done::Committed(changed) => {
                committed = true;
                changing.extend(changed);
                job.meters.compaction_seconds.record(job.rewriter.runtime.mono().since(began).as_secs_f64());
            }
            Done::Dropped(changed) => {
                job.meters.compaction_dropped.increment(1);
                changing.extend(changed);
            }
        }
    }
    if changing.is_empty() || committed { Ok(left) } else { Err(RewriteFailure::Dropped) }
}

/// What came of a plan; and the partitions that had changed meanwhile.
enum Done {
    Committed(BTreeSet<PartitionId>),
    Dropped(BTreeSet<PartitionId>),
}

/// What the shard's partitions have in objects, page by page, so that no turn gets long.
async fn survey(job: &Job, changing: &BTreeSet<PartitionId>) -> Result<Field, RewriteFailure> {
    let dying: BTreeSet<ObjectId> =
        job.rewriter.ask(|reply| MetaRequest::MostlyDead { reply }).await?.into_iter().collect();
    let dying = Rc::new(dying);
    let mut field = Field { avoid: job.avoid.clone(), ..Field::default() };
    let mut slot = Some(0);
    while let Some(from) = slot {
        let dying = dying.clone();
        let page = job.rewriter.inquire(|reply| Event::Inquiry(Inquiry::Survey { from, dying, reply })).await?;
        let settled = |stretch: &plan::Stretch| !changing.contains(&stretch.partition);
        field.waiting_bytes += page.field.waiting_bytes;
        field.fresh.extend(page.field.fresh.into_iter().filter(settled));
        field.dying.extend(page.field.dying.into_iter().filter(settled));
        slot = page.next;
    }
    Ok(field)
}

async fn compact(job: &Job, plan: &Plan, pace: &Rc<Pace>) -> Result<Done, RewriteFailure> {
    let mut described: BTreeMap<PartitionId, Described> = BTreeMap::new();
    let partitions: Vec<PartitionId> = plan.stretches.iter().map(|stretch| stretch.partition).collect();
    for some in partitions.chunks(PARTITIONS_AT_ONCE) {
        let some = some.to_vec();
        described
            .extend(job.rewriter.inquire(|reply| Event::Inquiry(Inquiry::Describe { partitions: some, reply })).await?);
    }
    if described.len() < plan.stretches.len() {
        // A topic was deleted since.
        return Ok(Done::Dropped(partitions.into_iter().filter(|id| !described.contains_key(id)).collect()));
    }
    let inputs = read(job, plan, pace).await?;
    failpoint::pass("compaction-read");
    let object = reserve(job).await?;
    failpoint::pass("compaction-reserved");
    let config = &job.ports.config;
    let head = Head { object, rewriter: &job.rewriter, block_bytes: config.block_bytes };
    let encoded = output::encode(&head, plan, &described, inputs).await;
    let (encoded, ranges) = encoded.map_err(|Unfit { input, why }| match input {
        Some(input) => RewriteFailure::Unreadable(vec![input], why),
        None => retry(why),
    })?;
    let object_bytes = encoded.size_bytes;
    let (key, put) = job.rewriter.put(object, encoded.parts, pace).await;
    #[cfg(feature = "planted-bugs")]
    let put = put.or_else(|error| if twice() { Ok(()) } else { Err(error) });
    put?;
    failpoint::pass("compaction-put");
    commit(job, plan, Compaction { object, key, object_bytes, ranges }).await
}

async fn reserve(job: &Job) -> Result<ObjectId, RewriteFailure> {
    #[cfg(feature = "planted-bugs")]
    if let Some(used) = job.used.get().filter(|_| twice()) {
        return Ok(used);
    }
    let object = job.rewriter.reserve().await?;
    #[cfg(feature = "planted-bugs")]
    job.used.set(Some(object));
    Ok(object)
}

/// A bug to be found: a reservation is used for one output after the other.
#[cfg(feature = "planted-bugs")]
fn twice() -> bool {
    thalweg_wal::planted(thalweg_wal::Bug::OutputTwice)
}

/// Commits what has not changed meanwhile. What has stays in the object, where nothing names it; if that is most of it, the object is not
/// worth its place.
async fn commit(job: &Job, plan: &Plan, mut what: Compaction) -> Result<Done, RewriteFailure> {
    let mut changed: BTreeSet<PartitionId> = BTreeSet::new();
    loop {
        let (shard, compaction) = (job.rewriter.shard, Box::new(what.clone()));
        match job.rewriter.ask(|reply| MetaRequest::Compact { shard, compaction, reply }).await? {
            CompactionOutcome::Committed(level) => {
                failpoint::pass("compaction-committed");
                count(job, plan, &what);
                tell(job, plan, &what, level)?;
                return Ok(Done::Committed(changed));
            }
            // The metadata has taken the reservation away.
            CompactionOutcome::Changed(_) if what.ranges.is_empty() => return Ok(Done::Dropped(changed)),
            CompactionOutcome::Changed(partitions) => {
                let before = what.ranges.len();
                changed.extend(partitions);
                what.ranges.retain(|r| !changed.contains(&r.range.partition));
                if what.ranges.len() == before {
                    return Err(retry("the metadata says of no partition that it has changed".into()));
                }
                if what.ranges.is_empty() {
                    return Ok(Done::Dropped(changed));
                }
                let left: u64 = what.ranges.iter().map(|r| r.range.size_bytes).sum();
                if left < plan.bytes() / 2 {
                    what.ranges.clear();
                }
            }
            CompactionOutcome::Unreserved => return Err(retry("the object's reservation was taken away".into())),
            CompactionOutcome::Fenced => {
                return Err(RewriteFailure::Fatal("another broker has fenced this one's epoch".into()));
            }
        }
    }
}

/// Sends readers to the new object, some partitions in each turn of the shard.
fn tell(job: &Job, plan: &Plan, made: &Compaction, level: u32) -> Result<(), RewriteFailure> {
    let first: BTreeMap<PartitionId, &CommittedObject> =
        plan.stretches.iter().map(|stretch| (stretch.partition, &*stretch.parts[0])).collect();
    for some in made.ranges.chunks(PARTITIONS_AT_ONCE) {
        let objects =
            some.iter().map(|r| (r.range.partition, committed(made, r, first[&r.range.partition].epoch, level)));
        job.rewriter.events.try_send(Event::Compacted { objects: objects.collect() }).map_err(stopping)?;
    }
    Ok(())
}

fn count(job: &Job, plan: &Plan, made: &Compaction) {
    let objects = &job.meters.compaction_objects;
    let kind = match plan.kind {
        Kind::Minor => &objects.minor,
        Kind::Major => &objects.major,
        Kind::Split => &objects.split,
    };
    kind.increment(1);
    job.meters.compaction_bytes.increment(made.object_bytes);
    tracing::info!(
        shard = job.rewriter.shard.0,
        kind = ?plan.kind,
        object = made.object.0,
        bytes = made.object_bytes,
        inputs = plan.inputs().len(),
        partitions = made.ranges.len(),
        "objects compacted"
    );
}

/// Reads what the plan takes, from all inputs side by side; the store lane bounds what is in flight.
async fn read(job: &Job, plan: &Plan, pace: &Rc<Pace>) -> Result<BTreeMap<ObjectId, Input>, RewriteFailure> {
    let mut wanted: BTreeMap<ObjectId, Vec<(PartitionId, Rc<CommittedObject>)>> = BTreeMap::new();
    for stretch in &plan.stretches {
        for part in &stretch.parts {
            wanted.entry(part.object).or_default().push((stretch.partition, part.clone()));
        }
    }
    let fetcher = Rc::new(job.rewriter.fetcher());
    let (tell, told) = flume::unbounded();
    let asked = wanted.len();
    for (id, parts) in wanted {
        let (fetcher, pace, tell) = (fetcher.clone(), pace.clone(), tell.clone());
        let task = async move {
            let _gone = tell.try_send((id, read_input(&fetcher, &pace, &parts).await));
        };
        job.rewriter.runtime.spawn(Queue::Janitor, "compaction input", Box::pin(task));
    }
    let mut inputs = BTreeMap::new();
    let mut failed: BTreeMap<ObjectId, String> = BTreeMap::new();
    // All of them end before the room is given back.
    for _ in 0..asked {
        let (id, input) = told.recv_async().await.map_err(stopping)?;
        match input {
            Ok(input) => drop(inputs.insert(id, input)),
            Err(why) => drop(failed.insert(id, why)),
        }
    }
    match failed.first_key_value().map(|(_, why)| why.clone()) {
        None => Ok(inputs),
        // Not the objects, but the store.
        Some(why) if asked > 1 && inputs.is_empty() => Err(retry(why)),
        Some(why) => Err(RewriteFailure::Unreadable(failed.into_keys().collect(), why)),
    }
}

/// Reads `parts`, by partition, of one object.
async fn read_input(
    fetcher: &Fetcher,
    pace: &Pace,
    parts: &[(PartitionId, Rc<CommittedObject>)],
) -> Result<Input, String> {
    let object = &parts[0].1;
    let (index, properties) = fetch_about(fetcher, object).await.map_err(|e| e.to_string())?;
    let mut input = Input::default();
    let wanted: BTreeSet<PartitionId> = parts.iter().map(|(partition, _)| *partition).collect();
    let about = properties.partitions.into_iter().filter(|about| wanted.contains(&about.partition));
    input.properties.extend(about.map(|about| (about.partition, about)));
    let mut blocks: Vec<BlockEntry> = Vec::new();
    for (partition, part) in parts {
        if !input.properties.contains_key(partition) {
            return Err(format!("object {} says nothing of {partition}", part.key));
        }
        blocks.extend(blocks_of(&index, *partition, part)?);
    }
    for run in runs(&blocks) {
        let bytes = read_run(fetcher, pace, object, run).await?;
        for block in run {
            let from = (block.position - run[0].position) as usize;
            let content = bytes.slice(from..from + block.size_bytes as usize);
            input.blocks.insert(place(block), (*block, content));
        }
    }
    Ok(input)
}

fn place(block: &BlockEntry) -> (PartitionId, Offset) {
    (block.partition, block.base)
}
