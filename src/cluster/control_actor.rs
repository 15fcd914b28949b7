//! Serves what the edges ask of control. Runs beside the meta actor, on the same thread.
//!
//! A change is answered when it is durable *and* in force on every shard *and* seen by every edge: a client that has the
//! answer finds the topic wherever it asks next. Works in turns, so that many creations share one sync and one snapshot.

use std::{cell::RefCell, collections::BTreeMap, convert::Infallible, rc::Rc};

use flume::{Receiver, Sender};
use futures_lite::future;
use thalweg_record::{PartitionId, ShardId, failpoint};
use thalweg_shards::{
    mailbox::ShardLane,
    msg::{Control as ToShard, PartitionChange},
};

use super::{
    actors::Inbox,
    control_msg::ControlRequest,
    control_turn::{Orders, Turn},
    ids::Random,
    ledger::{Fault, Ledger},
    open::NoGrowth,
    snapshot::{SnapshotUpdate, owner_shard},
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
    }
    Ok(())
}

impl Control {
    async fn bring_in_force(&self, revision: u64, changes: Vec<PartitionChange>, orders: Orders) -> bool {
        let mut by_shard: BTreeMap<ShardId, Vec<PartitionChange>> = BTreeMap::new();
        for change in changes {
            by_shard.entry(owner_shard(changed(&change), self.shards.len() as u16)).or_default().push(change);
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
        let snapshot = self.views.snapshot(revision);
        let (taken, seen) = flume::unbounded();
        for edge in &self.edges {
            let _gone = edge.try_send(SnapshotUpdate { snapshot: snapshot.clone(), taken: taken.clone() });
        }
        drop(taken);
        self.all(&seen, self.edges.len()).await
    }

    /// Waits for `count` signals; `false` when one of those who owe them is gone, or the process stops.
    async fn all<T>(&self, signals: &Receiver<T>, count: usize) -> bool {
        let arrived = async {
            for _ in 0..count {
                if signals.recv_async().await.is_err() {
                    return false;
                }
            }
            true
        };
        let stopped = async {
            let _dropped = self.stop.recv_async().await;
            false
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
