//! The metadata store: what an embedded database promises, and no more.
//!
//! Its actor dies with the broker; its content stays. Commits are volatile until a sync; a crash keeps them or loses them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use flume::{Receiver, Sender};
use thalweg_record::{LeaderEpoch, Offset, PartitionId};
use thalweg_shards::{
    meta::{CommitOutcome, CommittedObject, MetaRequest, ObjectCommit, ObjectId},
    msg::{PartitionSettings, PartitionSpec, ProducerEntry},
    runtime::{Queue, Runtime, seeded::Stream},
};

use crate::plant::Plant;

/// One partition as it is stored.
#[derive(Clone)]
struct Stored {
    settings: PartitionSettings,
    log_start: Offset,
    committed: Vec<CommittedObject>,
    epochs: Vec<(LeaderEpoch, Offset)>,
    producers: BTreeMap<i64, ProducerEntry>,
    committed_end: Offset,
}

#[derive(Clone, Default)]
struct State {
    partitions: BTreeMap<PartitionId, Stored>,
    next_object: u64,
    /// Ids reserved and not committed, with the epoch that reserved them.
    reserved: BTreeMap<ObjectId, u64>,
    committed: BTreeSet<ObjectId>,
    garbage: BTreeMap<ObjectId, u64>,
    node_epoch: u64,
}

struct Store {
    current: State,
    durable: State,
    plant: Plant,
}

/// A handle to the store; it survives crashes.
#[derive(Clone)]
pub(crate) struct Metadata(Rc<RefCell<Store>>);

impl Metadata {
    pub(crate) fn new(partitions: &[(PartitionId, PartitionSettings)], plant: Plant) -> Metadata {
        let stored = |settings: &PartitionSettings| Stored {
            settings: settings.clone(),
            log_start: Offset(0),
            committed: Vec::new(),
            epochs: Vec::new(),
            producers: BTreeMap::new(),
            committed_end: Offset(0),
        };
        let partitions = partitions.iter().map(|(id, settings)| (*id, stored(settings))).collect();
        let state = State { partitions, next_object: 1, ..State::default() };
        Metadata(Rc::new(RefCell::new(Store { current: state.clone(), durable: state, plant })))
    }

    /// The process dies: what was not synced is there or is not.
    pub(crate) fn crash(&self, random: &mut Stream) {
        let mut store = self.0.borrow_mut();
        if random.one_in(2) {
            store.current = store.durable.clone();
        }
        store.durable = store.current.clone();
    }

    /// A start: raises the node's epoch, which is every partition's leader epoch too, and says what to open.
    pub(crate) fn begin(&self) -> (u64, Vec<PartitionSpec>) {
        let mut store = self.0.borrow_mut();
        store.current.node_epoch += 1;
        store.durable = store.current.clone();
        let state = &store.current;
        let epoch = LeaderEpoch(state.node_epoch as i32);
        (state.node_epoch, state.partitions.iter().map(|(id, stored)| spec(*id, epoch, stored)).collect())
    }

    /// Starts the actor on the broker's node.
    pub(crate) fn serve(&self, runtime: &Rc<dyn Runtime>, mut random: Stream) -> Sender<MetaRequest> {
        let (sender, inbox): (_, Receiver<MetaRequest>) = flume::unbounded();
        let (this, clock) = (self.clone(), runtime.clone());
        let actor = async move {
            while let Ok(request) = inbox.recv_async().await {
                let us = random.below(2_000);
                clock.sleep_until(clock.mono().plus(Duration::from_micros(us))).await;
                this.0.borrow_mut().answer(request);
            }
        };
        runtime.spawn(Queue::Upload, "metadata", Box::pin(actor));
        sender
    }

    /// First offset of a partition that no committed object holds.
    pub(crate) fn committed_end(&self, partition: PartitionId) -> Offset {
        self.0.borrow().current.partitions[&partition].committed_end
    }

    /// A partition's log start.
    pub(crate) fn log_start(&self, partition: PartitionId) -> Offset {
        self.0.borrow().current.partitions[&partition].log_start
    }
}

fn spec(partition: PartitionId, leader_epoch: LeaderEpoch, stored: &Stored) -> PartitionSpec {
    PartitionSpec {
        partition,
        topic_name: "simulated".into(),
        leader_epoch,
        settings: stored.settings.clone(),
        log_start: stored.log_start,
        manifests: Vec::new(),
        committed: stored.committed.iter().filter(|o| o.last >= stored.log_start).cloned().collect(),
        epochs: stored.epochs.clone(),
        producers: stored.producers.values().cloned().collect(),
        committed_end: stored.committed_end,
        cleaned: Offset(0),
        internal: false,
        loan: None,
    }
}

impl Store {
    fn answer(&mut self, request: MetaRequest) {
        match request {
            MetaRequest::ReserveObjects { count, reply, .. } => {
                let first = self.current.next_object;
                self.current.next_object += u64::from(count);
                let epoch = self.current.node_epoch;
                self.current.reserved.extend((first..first + u64::from(count)).map(|id| (ObjectId(id), epoch)));
                self.sync();
                let _gone = reply.try_send(ObjectId(first));
            }
            MetaRequest::Commit { commits, reply, .. } => {
                let mut outcomes = Vec::new();
                for commit in &commits {
                    outcomes.push(self.current.commit(commit));
                    if outcomes.last() != Some(&CommitOutcome::Committed) {
                        break;
                    }
                }
                let _gone = reply.try_send(outcomes);
            }
            MetaRequest::Compact { .. }
            | MetaRequest::Fold { .. }
            | MetaRequest::Unfold { .. }
            | MetaRequest::MostlyDead { .. }
            | MetaRequest::MoveDirtyPoint { .. } => {
                unreachable!("this shard neither compacts nor cleans nor folds")
            }
            MetaRequest::Sync { reply } => {
                if self.plant != Plant::EarlySync {
                    self.sync();
                }
                let _gone = reply.try_send(());
            }
            MetaRequest::RaiseLogStart { starts, reply } => {
                for (id, to) in starts {
                    if let Some(stored) = self.current.partitions.get_mut(&id) {
                        stored.log_start = stored.log_start.max(to);
                    }
                }
                self.sync();
                let _gone = reply.try_send(());
            }
            MetaRequest::TakeStaleReservations { limit, reply, .. } => {
                let _gone = reply.try_send(self.current.take_stale(limit as usize));
                self.sync();
            }
            MetaRequest::GarbageGone { objects } => {
                for object in objects {
                    self.current.garbage.remove(&object);
                }
            }
        }
    }

    fn sync(&mut self) {
        self.durable = self.current.clone();
    }
}

impl State {
    fn commit(&mut self, commit: &ObjectCommit) -> CommitOutcome {
        if self.committed.contains(&commit.object) {
            return CommitOutcome::Committed;
        }
        if !self.reserved.contains_key(&commit.object) {
            return CommitOutcome::Unreserved;
        }
        let end = |id: &PartitionId| self.partitions.get(id).map(|stored| stored.committed_end);
        let wrong: Vec<_> = commit
            .ranges
            .iter()
            .filter(|range| end(&range.partition) != Some(range.base))
            .map(|range| (range.partition, end(&range.partition)))
            .collect();
        if !wrong.is_empty() {
            return CommitOutcome::Mismatch(wrong);
        }
        self.reserved.remove(&commit.object);
        self.committed.insert(commit.object);
        for range in &commit.ranges {
            let stored = self.partitions.get_mut(&range.partition).expect("just checked");
            stored.epochs.extend(range.epochs.iter().copied());
            stored.producers.extend(range.producers.iter().map(|p| (p.producer_id, p.clone())));
            stored.committed_end = range.last.next();
            stored.committed.push(CommittedObject {
                object: commit.object,
                key: commit.key.clone(),
                object_bytes: commit.object_bytes,
                base: range.base,
                last: range.last,
                size_bytes: range.size_bytes,
                max_timestamp: range.max_timestamp,
                epoch: stored.epochs.last().map_or(LeaderEpoch(-1), |(epoch, _)| *epoch),
                level: 0,
            });
        }
        CommitOutcome::Committed
    }

    fn take_stale(&mut self, limit: usize) -> Vec<(ObjectId, u64)> {
        let now = self.node_epoch;
        let stale: Vec<_> = self.reserved.iter().filter(|(_, epoch)| **epoch < now).map(|(id, e)| (*id, *e)).collect();
        for (id, epoch) in &stale {
            self.reserved.remove(id);
            self.garbage.insert(*id, *epoch);
        }
        self.garbage.iter().take(limit).map(|(id, epoch)| (*id, *epoch)).collect()
    }
}
