//! The shard's side of compaction: when it looks for work, what it says of its partitions, and what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use flume::Sender;
use thalweg_record::{Mono, PartitionId};

use super::{
    CompactionConfig,
    job::{self, Job, Left},
    plan::{Field, Stretch},
};
use crate::{
    meta::{CommittedObject, ObjectId},
    moves::PeerMessage,
    partition::{Partition, Role},
    rewrite::{Described, RewriteFailure, describe},
    runtime::Queue,
    shard::Shard,
};

/// Partitions that are asked about their objects in one turn.
const PARTITIONS_PER_TURN: usize = 64;
/// Intervals between two tries double up to this factor while they fail; for so long an object is left alone that did not read right.
const LONGEST_PAUSE: u32 = 32;

/// What a shard knows of its compaction.
pub(crate) struct Compactor {
    running: bool,
    due_at: Mono,
    failures: u32,
    /// Objects that did not read right, each until when it is left alone.
    avoid: BTreeMap<ObjectId, Mono>,
    #[cfg(feature = "planted-bugs")]
    used: Rc<std::cell::Cell<Option<ObjectId>>>,
}

impl Compactor {
    pub(crate) fn new(now: Mono) -> Compactor {
        Compactor {
            running: false,
            due_at: now,
            failures: 0,
            avoid: BTreeMap::new(),
            #[cfg(feature = "planted-bugs")]
            used: Rc::default(),
        }
    }

    /// Intervals until the next try, twice as many after each that failed.
    fn longer_pause(&mut self) -> u32 {
        let pause = (1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures += 1;
        pause
    }
}

/// What compaction asks its shard.
pub(crate) enum Inquiry {
    /// What its partitions have in objects, from a slot on.
    Survey { from: usize, dying: Rc<BTreeSet<ObjectId>>, reply: Sender<Page> },
    /// What objects tell of these partitions; those that are gone are left out.
    Describe { partitions: Vec<PartitionId>, reply: Sender<Vec<(PartitionId, Described)>> },
}

/// A part of a survey.
#[derive(Debug)]
pub(crate) struct Page {
    pub(super) field: Field,
    pub(super) next: Option<usize>,
}

impl Shard {
    /// Looks for work when it is time, unless some is under way.
    pub(crate) fn run_compaction(&mut self) {
        let Some(ports) = self.ports.compaction.clone() else { return };
        if self.compactor.running || self.now < self.compactor.due_at || self.refuses_appends() {
            return;
        }
        self.compactor.running = true;
        self.compactor.avoid.retain(|_, until| *until > self.now);
        let job = Job {
            avoid: Rc::new(self.compactor.avoid.keys().copied().collect()),
            rewriter: self.rewriter(ports.store.clone()),
            ports,
            meters: self.ports.meters.clone(),
            #[cfg(feature = "planted-bugs")]
            used: self.compactor.used.clone(),
        };
        self.ports.runtime.spawn(Queue::Janitor, "compaction", Box::pin(job::run(job)));
    }

    /// Answers compaction.
    pub(crate) fn inquiry(&self, inquiry: Inquiry) {
        match inquiry {
            Inquiry::Survey { from, dying, reply } => {
                let Some(ports) = &self.ports.compaction else { return };
                let mut field = Field::default();
                let cleaned = self.cleaner.at_work_on();
                let next = self.partitions.page(from, PARTITIONS_PER_TURN, |partition| {
                    // What is being cleaned is read and written anew just now; another copy of it would be in vain.
                    if cleaned != Some(partition.id) {
                        show(&ports.config, partition, &dying, &mut field);
                    }
                });
                let _gone = reply.try_send(Page { field, next });
            }
            Inquiry::Describe { partitions, reply } => {
                let known = partitions.iter().filter_map(|id| Some((*id, describe(self.owned(id).ok()?))));
                let _gone = reply.try_send(known.collect());
            }
        }
    }

    /// An object has taken the place of parts of others, and the metadata is durable.
    pub(crate) fn compacted(&mut self, objects: Vec<(PartitionId, CommittedObject)>) {
        for (id, object) in objects {
            match self.partitions.get_mut(&id) {
                Some(partition) if partition.role != Role::Lender => partition.objects.replace(object),
                _ => self.pass_on(id, || PeerMessage::Compacted(id, object)),
            }
        }
    }

    /// The work came to its end.
    pub(crate) fn compaction_ended(&mut self, result: Result<Left, RewriteFailure>) {
        let Some(interval) = self.ports.compaction.as_ref().map(|ports| ports.config.interval) else { return };
        self.compactor.running = false;
        let mut pause = 1;
        match result {
            Ok(left) => {
                self.compactor.failures = 0;
                // A pause would have what waits catch up with what is done.
                pause = u32::from(left == Left::Nothing);
            }
            Err(RewriteFailure::Dropped) => {
                // Where something changes all the time, the same copy would be made in vain again and again.
                pause = self.compactor.longer_pause();
                tracing::debug!(shard = self.config.id.0, "compaction dropped: what it copied has changed meanwhile");
            }
            Err(RewriteFailure::Unreadable(objects, why)) => {
                tracing::warn!(
                    shard = self.config.id.0,
                    ?objects,
                    why,
                    "objects could not be read for a compaction; it goes on without them for a while"
                );
                self.ports.meters.compaction_errors.increment(1);
                let until = self.now.plus(interval * LONGEST_PAUSE);
                self.compactor.avoid.extend(objects.into_iter().map(|object| (object, until)));
            }
            Err(RewriteFailure::Retry(why)) => {
                tracing::warn!(shard = self.config.id.0, why, "compaction failed; it is tried again");
                self.ports.meters.compaction_errors.increment(1);
                pause = self.compactor.longer_pause();
            }
            Err(RewriteFailure::Fatal(why)) => {
                let _gone = self.ports.failed.try_send(format!("shard {}: {why}", self.config.id));
            }
        }
        self.compactor.due_at = self.now.plus(interval * pause);
    }
}

/// What matters of a partition's objects.
fn show(config: &CompactionConfig, partition: &Partition, dying: &BTreeSet<ObjectId>, field: &mut Field) {
    if partition.role == Role::Lender {
        return;
    }
    let objects = &partition.objects;
    field.add_uploads(config, partition.id, objects.uploads_bytes(), objects.uploads());
    if !dying.is_empty() {
        let alone = |part| Stretch { partition: partition.id, parts: vec![part] };
        field.dying.extend(objects.among(dying).map(alone));
    }
}
