//! The shard's side of cleaning: when it looks for work, what it says of its partitions, and what becomes of it.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use flume::Sender;
use thalweg_record::{Mono, Offset, PartitionId};

use super::{
    job::{self, Job},
    plan::{self, Dirt, Stand},
};
use crate::{
    meta::CommittedObject,
    msg::{CleanerTuning, CleaningSettings},
    partition::{Partition, Role},
    rewrite::{Described, describe},
    runtime::Queue,
    shard::Shard,
};

/// Partitions that are looked at in one turn: each costs as much as it has objects.
const PARTITIONS_PER_TURN: usize = 16;
/// Times the pause for which a partition is left alone that failed.
const PAUSES_AFTER_FAILURE: u32 = 8;

/// What a shard knows of its cleaning.
pub(crate) struct Cleaner {
    running: bool,
    /// Compaction leaves this partition alone: both would replace the same parts.
    at_work_on: Option<PartitionId>,
    due_at: Mono,
    last_run: Mono,
    /// Partitions whose last round failed, each until when it is left alone.
    failed: BTreeMap<PartitionId, Mono>,
    /// Partitions with a batch that cannot be cleaned, and an offset at or behind it: while the log starts no later, they are left alone.
    unfit: BTreeMap<PartitionId, Offset>,
}

impl Cleaner {
    pub(crate) fn new(now: Mono) -> Cleaner {
        Cleaner {
            running: false,
            at_work_on: None,
            due_at: now,
            last_run: now,
            failed: BTreeMap::new(),
            unfit: BTreeMap::new(),
        }
    }

    /// The partition of the round under way.
    pub(crate) fn at_work_on(&self) -> Option<PartitionId> {
        self.at_work_on
    }
}

/// What cleaning asks its shard.
pub(crate) enum Inquiry {
    /// How dirty its partitions are, from a slot on.
    Survey { from: usize, reply: Sender<Page> },
    /// All that a round needs of a partition; nothing of one that is gone.
    Describe { partition: PartitionId, reply: Sender<Option<Subject>> },
}

/// A part of a survey.
#[derive(Debug)]
pub(crate) struct Page {
    pub(super) dirt: Vec<Dirt>,
    pub(super) next: Option<usize>,
}

/// A partition to be cleaned.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(super) described: Described,
    pub(super) settings: CleaningSettings,
    /// First offset that no round has seen, as the metadata has it.
    pub(super) cleaned: Offset,
    pub(super) parts: Vec<Rc<CommittedObject>>,
    /// The last offset of each producer.
    pub(super) producers: BTreeMap<i64, Offset>,
}

/// What came of the work.
#[derive(Default, Debug)]
pub(crate) struct Ended {
    /// Partitions whose round failed, and may succeed later.
    pub(super) failed: Vec<PartitionId>,
    /// Partitions with a batch that cannot be cleaned, and an offset at or behind it.
    pub(super) unfit: Vec<(PartitionId, Offset)>,
    /// The broker must stop.
    pub(super) fatal: Option<String>,
}

impl Shard {
    /// Looks for work when it is time, unless some is under way.
    pub(crate) fn run_cleaning(&mut self) {
        let Some(ports) = self.ports.cleaning.clone() else { return };
        let cleaner = &mut self.cleaner;
        let idle = self.now.since(cleaner.last_run).as_secs_f64();
        self.ports.meters.cleaner_idle_seconds.set(if cleaner.running { 0.0 } else { idle });
        if cleaner.running || self.now < cleaner.due_at || self.refuses_appends() {
            return;
        }
        self.cleaner.running = true;
        let job = Job {
            rewriter: self.rewriter(ports.store.clone()),
            ports,
            meters: self.ports.meters.clone(),
            known: RefCell::default(),
        };
        self.ports.runtime.spawn(Queue::Janitor, "cleaning", Box::pin(job::run(job)));
    }

    /// Answers cleaning.
    pub(crate) fn cleaning_inquiry(&mut self, inquiry: Inquiry) {
        match inquiry {
            Inquiry::Survey { from, reply } => {
                let (now, wall, cleaner) = (self.now, self.wall, &self.cleaner);
                let mut dirt = Vec::new();
                let next = self.partitions.page(from, PARTITIONS_PER_TURN, |partition| {
                    if partition.role != Role::Owner {
                        return;
                    }
                    let failed = cleaner.failed.get(&partition.id).is_some_and(|until| *until > now);
                    let unfit = cleaner.unfit.get(&partition.id).is_some_and(|offset| *offset >= partition.log_start);
                    // What manifests list is unfolded first: a round goes through the whole log.
                    let listed = partition.objects.newest_manifest().is_some();
                    if !failed && !unfit && !listed {
                        let parts = partition.objects.iter();
                        dirt.extend(plan::dirt(&stand(partition), &partition.settings, parts, wall));
                    }
                });
                let _gone = reply.try_send(Page { dirt, next });
            }
            Inquiry::Describe { partition, reply } => {
                // It goes to no other shard during a round, and no round begins once it is sealed: what is cleaned is told to its owner.
                let owned = self.partitions.get(&partition).filter(|owned| owned.role == Role::Owner);
                // Nor is it folded or unfolded meanwhile: what is told of both could come in another order than it was done in.
                let settled = |owned: &&Partition| {
                    owned.objects.newest_manifest().is_none() && !self.folder.is_at_work_on(owned.id)
                };
                let owned = owned.filter(settled);
                self.cleaner.at_work_on = owned.map(|owned| owned.id);
                let _gone = reply.try_send(owned.map(subject));
            }
        }
    }

    /// An object has taken the place of a partition's parts, without what was replaced in them.
    pub(crate) fn part_cleaned(&mut self, partition: PartitionId, object: CommittedObject) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.take_cleaned(object);
        }
    }

    /// A round of a partition has come to its end, and the metadata is durable.
    pub(crate) fn cleaned(&mut self, partition: PartitionId, to: Offset) {
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.cleaned = partition.cleaned.max(to);
        }
    }

    /// Other settings are in force; what is under way goes on with the old ones.
    pub(crate) fn tune_cleaner(&mut self, tuning: CleanerTuning) {
        if let Some(ports) = &mut self.ports.cleaning {
            ports.config.tune(tuning);
            ports.maps.resize(tuning.dedupe_bytes);
            self.cleaner.due_at = self.cleaner.due_at.min(self.now.plus(tuning.backoff));
        }
    }

    /// The work came to its end.
    pub(crate) fn cleaning_ended(&mut self, ended: Ended) {
        let Some(backoff) = self.ports.cleaning.as_ref().map(|ports| ports.config.backoff) else { return };
        let cleaner = &mut self.cleaner;
        (cleaner.running, cleaner.at_work_on) = (false, None);
        cleaner.last_run = self.now;
        cleaner.due_at = self.now.plus(backoff);
        cleaner.failed.retain(|_, until| *until > self.now);
        let until = self.now.plus(backoff * PAUSES_AFTER_FAILURE);
        cleaner.failed.extend(ended.failed.into_iter().map(|partition| (partition, until)));
        cleaner.unfit.extend(ended.unfit);
        let partitions = &self.partitions;
        cleaner.unfit.retain(|id, offset| partitions.get(id).is_some_and(|partition| *offset >= partition.log_start));
        self.ports.meters.cleaner_unfit.set(cleaner.unfit.len() as f64);
        if let Some(why) = ended.fatal {
            let _gone = self.ports.failed.try_send(format!("shard {}: {why}", self.config.id));
        }
    }
}

fn stand(partition: &Partition) -> Stand {
    Stand {
        partition: partition.id,
        log_start: partition.log_start,
        cleaned: partition.cleaned,
        stable: partition.readable_end(),
    }
}

fn subject(partition: &Partition) -> Subject {
    Subject {
        described: describe(partition),
        settings: partition.settings.cleaning,
        cleaned: partition.cleaned,
        parts: partition.objects.from(partition.log_start, usize::MAX),
        producers: partition.producers.last_offsets(),
    }
}
