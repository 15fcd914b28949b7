//! The shard's side of folding: which partitions have too many entries, and what becomes of them.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use thalweg_record::{Mono, PartitionId};

use super::{
    job::{self, Job, Work},
    plan::entries_to_fold,
};
use crate::{
    meta::{CommittedObject, ManifestRef, ObjectId},
    partition::{Partition, Role},
    rewrite::RewriteFailure,
    runtime::Queue,
    shard::Shard,
};

/// Partitions that are looked at in one tick.
const PARTITIONS_PER_TICK: usize = 64;
/// Manifests of one job.
const WORK_AT_ONCE: usize = 16;
/// The pause after a failure; it doubles with each further one, ...
const PAUSE: Duration = Duration::from_secs(1);
/// ... so often at most.
const DOUBLINGS: u32 = 6;

/// What a shard knows of its folding.
pub(crate) struct Folder {
    /// What the work under way is about: none of it goes to another shard meanwhile, for what becomes of it is told here.
    at_work_on: BTreeSet<PartitionId>,
    due_at: Mono,
    failures: u32,
    /// The slot to go on with.
    next: usize,
    /// Entries counted since the first slot.
    entries: usize,
}

impl Folder {
    pub(crate) fn new(now: Mono) -> Folder {
        Folder { at_work_on: BTreeSet::new(), due_at: now, failures: 0, next: 0, entries: 0 }
    }

    /// Whether a partition's entries are just being folded, or unfolded.
    pub(crate) fn is_at_work_on(&self, id: PartitionId) -> bool {
        self.at_work_on.contains(&id)
    }
}

impl Shard {
    /// Looks at some partitions, and has a task fold what is too much, unless one is under way.
    pub(crate) fn run_folding(&mut self) {
        if !self.folder.at_work_on.is_empty() || self.now < self.folder.due_at || self.refuses_appends() {
            return;
        }
        let (mut work, mut entries) = (Vec::new(), 0);
        let next = self.partitions.page(self.folder.next, PARTITIONS_PER_TICK, |partition| {
            if partition.role == Role::Lender {
                return;
            }
            entries += partition.objects.len();
            // What is sealed is about to go to another shard.
            if partition.role == Role::Owner && work.len() < WORK_AT_ONCE {
                work.extend(self.work_for(partition));
            }
        });
        self.folder.entries += entries;
        self.folder.next = next.unwrap_or(0);
        if next.is_none() {
            self.ports.meters.object_entries.set(std::mem::take(&mut self.folder.entries) as f64);
        }
        if !work.is_empty() {
            self.folder.at_work_on = work.iter().map(Work::partition).collect();
            let (rewriter, meters) = (self.rewriter(self.ports.store.clone()), self.ports.meters.clone());
            let job = Job { rewriter, meters, work };
            self.ports.runtime.spawn(Queue::Janitor, "folding", Box::pin(job::run(job)));
        }
    }

    fn work_for(&self, partition: &Partition) -> Option<Work> {
        let (id, objects) = (partition.id, &partition.objects);
        // What is being cleaned is about to change.
        if self.cleaner.at_work_on() == Some(id) {
            return None;
        }
        if partition.settings.compact {
            return objects.newest_manifest().map(|manifest| Work::Unfold(id, manifest.clone()));
        }
        let compaction = self.ports.compaction.as_ref().map(|ports| &ports.config);
        let stays = |part: &CommittedObject| compaction.is_none_or(|config| config.is_large(part));
        let max = self.config.entries_max;
        let run = match objects.len() > max {
            true => entries_to_fold(objects.len(), objects.settled(stays).count(), max),
            false => 0,
        };
        let parts: Vec<Rc<CommittedObject>> = objects.settled(stays).take(run).cloned().collect();
        (!parts.is_empty()).then_some(Work::Fold(id, parts))
    }

    /// A manifest has taken the place of entries, and the metadata is durable.
    pub(crate) fn folded(&mut self, id: PartitionId, manifest: ManifestRef) {
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.objects.fold(manifest, partition.log_start);
        }
    }

    /// Entries have taken the place of their manifest, and the metadata is durable.
    pub(crate) fn unfolded(&mut self, id: PartitionId, manifest: ObjectId, entries: Vec<CommittedObject>) {
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.objects.unfold(manifest, entries, partition.log_start);
        }
    }

    /// The work came to its end.
    pub(crate) fn folding_ended(&mut self, result: Result<(), RewriteFailure>) {
        self.folder.at_work_on.clear();
        let failed = match result {
            Ok(()) => false,
            Err(RewriteFailure::Fatal(why)) => {
                let _gone = self.ports.failed.try_send(format!("shard {}: {why}", self.config.id));
                true
            }
            // Whatever goes on changing must not have a manifest put for nothing at each look.
            Err(RewriteFailure::Dropped) => true,
            Err(failure) => {
                tracing::warn!(
                    shard = self.config.id.0,
                    ?failure,
                    "a manifest could not be written or read; it is tried again"
                );
                true
            }
        };
        self.folder.failures = if failed { (self.folder.failures + 1).min(DOUBLINGS) } else { 0 };
        if failed {
            self.folder.due_at = self.now.plus(PAUSE * (1 << (self.folder.failures - 1)));
        }
    }
}
