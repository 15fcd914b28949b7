//! Serves what the edges ask of control. Runs beside the meta actor, on the same thread.
//!
//! A change is answered when it is durable *and* in force on every shard *and* seen by every edge: a client that has the
//! answer finds the topic wherever it asks next. Works in turns, so that many creations share one sync and one snapshot.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    rc::Rc,
};

use flume::{Receiver, Sender};
use futures_lite::future;
use thalweg_record::{PartitionId, ShardId, failpoint};
use thalweg_shards::{
    mailbox::ShardLane,
    msg::{Control as ToShard, Generation, PartitionChange},
};

use super::{
    actors::Inbox,
    control_msg::ControlRequest,
    control_turn::{Orders, Turn},
    ids::Random,
    ledger::{Fault, Ledger},
    open::NoGrowth,
    snapshot::SnapshotUpdate,
    views::Views,
};

/// What control works with.
pub(super) struct Control {
    pub(super) ledger: Rc<RefCell<Ledger>>,
    pub(super) views: Views,
    pub(super) shards: Vec<ShardLane>,
    pub(super) edges: Vec<Sender<SnapshotUpdate>>,
    pub(super) stop: Receiver<Infallible>,
}

/// Serves requests until the process stops.
pub(super) async fn serve(
    inbox: Inbox<ControlRequest>,
    mut control: Control,
    random: &mut Random,
    no_growth: &NoGrowth,
) -> Result<(), Fault> {
    while let Some(requests) = inbox.next().await {
        let mut turn = Turn { no_growth: no_growth(), ..Turn::default() };
        for request in requests {
            turn.apply(&mut control.ledger.borrow_mut(), &mut control.views, request, random)?;
        }
        if turn.acls {
            control.views.set_acls(&control.ledger.borrow());
        }
        if turn.scram {
            control.views.set_scram(&control.ledger.borrow());
        }
        if turn.wrote {
            failpoint::pass("control-applied");
            let store = control.ledger.borrow().store();
            store.sync()?;
            failpoint::pass("control-durable");
        }
        // The shards or edges may be gone when the process stops: then nobody gets an answer.
        let in_force = match turn.revision {
            Some(revision) => control.bring_in_force(revision, turn.changes, turn.orders).await,
            None => true,
        };
        if in_force {
            failpoint::pass("control-in-force");
            turn.answers.into_iter().for_each(|answer| answer());
        }
        for (moves, reply) in turn.moves {
            // A full disk is left what room it has; and what moves is told when it is elsewhere, or not at all.
            let moved = if turn.no_growth.is_some() { Some(Vec::new()) } else { control.relocate(moves).await? };
            if let Some(moved) = moved {
                let _gone = reply.try_send(moved);
            }
        }
    }
    Ok(())
}

impl Control {
    async fn bring_in_force(&self, revision: u64, changes: Vec<PartitionChange>, orders: Orders) -> bool {
        let mut by_shard: BTreeMap<ShardId, Vec<PartitionChange>> = BTreeMap::new();
        for change in changes {
            // What lies in the log of the shard before goes too.
            if self.views.some_moved && matches!(change, PartitionChange::Delete(_)) {
                self.shards.iter().for_each(|lane| by_shard.entry(lane.id).or_default().push(change.clone()));
                continue;
            }
            by_shard.entry(self.views.owner(changed(&change))).or_default().push(change);
        }
        let (done, in_force) = flume::unbounded();
        for lane in &self.shards {
            let changes = by_shard.remove(&lane.id).unwrap_or_default();
            // On the same lane before what is answered: in force with it.
            orders.producers_expire.into_iter().for_each(|after| lane.control(ToShard::ExpireProducers { after }));
            orders.cleaner.into_iter().for_each(|tuning| lane.control(ToShard::TuneCleaner(tuning)));
            lane.control(ToShard::Apply { revision, changes, done: done.clone() });
        }
        drop(done);
        if !self.all(&in_force, self.shards.len()).await {
            return false;
        }
        self.publish(revision).await
    }

    /// Has every edge use the newest views; `false` when the process stops.
    async fn publish(&self, revision: u64) -> bool {
        let snapshot = self.views.snapshot(revision);
        let (taken, seen) = flume::unbounded();
        for edge in &self.edges {
            let _gone = edge.try_send(SnapshotUpdate { snapshot: snapshot.clone(), taken: taken.clone() });
        }
        drop(taken);
        self.all(&seen, self.edges.len()).await
    }

    /// Moves partitions to other shards, as far as they may; answers which have moved, `None` when the process stops. Nothing else changes
    /// meanwhile.
    ///
    /// Once a shard has sealed a partition there is no way back: what was sent to it is on its way to the new owner.
    async fn relocate(&mut self, moves: Vec<(PartitionId, ShardId)>) -> Result<Option<Vec<PartitionId>>, Fault> {
        let generation = Generation(self.views.generation.0 + 1);
        let mut by_owner: BTreeMap<ShardId, BTreeMap<PartitionId, ShardId>> = BTreeMap::new();
        for (id, to) in moves {
            let exists = self.ledger.borrow().catalog.partition(id).is_some();
            let owner = self.views.owner(id);
            if exists && owner != to && usize::from(to.0) < self.shards.len() {
                by_owner.entry(owner).or_default().insert(id, to);
            }
        }
        let (sealed, told) = flume::unbounded();
        for (owner, moves) in &by_owner {
            let (partitions, sealed) = (moves.keys().copied().collect(), sealed.clone());
            self.shards[usize::from(owner.0)].control(ToShard::Seal { partitions, generation, sealed });
        }
        drop(sealed);
        let Some(sealed) = self.each(&told, by_owner.len()).await else { return Ok(None) };
        let sealed: BTreeSet<PartitionId> = sealed.into_iter().flatten().collect();
        if sealed.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let (taken, told) = flume::unbounded();
        let mut chosen = Vec::new();
        for (owner, moves) in by_owner {
            let moves: Vec<(PartitionId, ShardId)> = moves.into_iter().filter(|(id, _)| sealed.contains(id)).collect();
            chosen.extend(&moves);
            let taken = taken.clone();
            self.shards[usize::from(owner.0)].control(ToShard::HandOver { moves, generation, taken });
        }
        drop(taken);
        let Some(moved) = self.each(&told, sealed.len()).await else { return Ok(None) };
        failpoint::pass("move-taken");
        let revision = self.ledger.borrow_mut().set_owners(&chosen)?;
        self.views.set_owners(&self.ledger.borrow(), generation);
        Ok(self.publish(revision).await.then_some(moved))
    }

    /// Waits for `count` signals; `false` when one of those who owe them is gone, or the process stops.
    async fn all<T>(&self, signals: &Receiver<T>, count: usize) -> bool {
        self.each(signals, count).await.is_some()
    }

    /// As [`Control::all`], with what the signals say.
    async fn each<T>(&self, signals: &Receiver<T>, count: usize) -> Option<Vec<T>> {
        let arrived = async {
            let mut said = Vec::with_capacity(count);
            for _ in 0..count {
                said.push(signals.recv_async().await.ok()?);
            }
            Some(said)
        };
        let stopped = async {
            let _dropped = self.stop.recv_async().await;
            None
        };
        future::or(arrived, stopped).await
    }
}

fn changed(change: &PartitionChange) -> PartitionId {
    match change {
        PartitionChange::Open(spec) => spec.partition,
        PartitionChange::Configure(partition, _) | PartitionChange::Delete(partition) => *partition,
    }
}
