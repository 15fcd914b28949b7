//! The order of a connection's batches while partitions move between shards.
//!
//! Two rules keep it. What a connection has under way was all sent by one generation of owners: a Produce waits until those sent by an
//! earlier one are answered, so that it overtakes none of them on its way to another shard. And a shard gives batches back that came
//! too late for it, for good; they are sent again one Produce after the other, for only the oldest that is not answered is at work here.
//!
//! A batch that is sent again travels on the permit that it has: it waits for no other one, which a later Produce of its own connection
//! may hold. Permits so bound what all mailboxes hold together.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
};

use flume::Sender;
use futures_lite::future::or;
use thalweg_record::{Batch, Mono, PartitionId, ShardId};
use thalweg_shards::{
    mailbox::ReplyTo,
    msg::{AppendRequest, Generation, Origin, PartitionError, Reply, Request},
};

use super::answer::Answered;
use crate::{
    api::{
        Call, Edge,
        gather::{self, Newer},
    },
    cluster::ClusterSnapshot,
};

/// Produces of one connection that are not answered yet.
#[derive(Debug, Default)]
pub struct Unanswered {
    /// By whose owners they were sent.
    generation: Cell<Generation>,
    count: Cell<usize>,
    /// To be told when there is none any more.
    waiting: RefCell<Option<Sender<()>>>,
}

/// A place among them, until the answer is known.
#[derive(Debug)]
pub(super) struct Place(Rc<Unanswered>);

impl Unanswered {
    /// Waits until a Produce may be sent, and gives the snapshot that tells where to.
    pub(super) async fn enter(self: &Rc<Self>, edge: &Edge) -> (Arc<ClusterSnapshot>, Place) {
        loop {
            let snapshot = edge.snapshot();
            let may = self.count.get() == 0 || self.generation.get() == snapshot.generation;
            #[cfg(feature = "planted-bugs")]
            let may = may || thalweg_wal::planted(thalweg_wal::Bug::SentAhead);
            if may {
                self.generation.set(snapshot.generation);
                self.count.set(self.count.get() + 1);
                return (snapshot, Place(Rc::clone(self)));
            }
            let (tell, told) = flume::bounded(1);
            self.waiting.replace(Some(tell));
            let _answered = told.recv_async().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        if self.0.count.get() == 0 {
            if let Some(waiting) = self.0.waiting.take() {
                let _gone = waiting.try_send(());
            }
        }
    }
}

/// A batch that came back: its place in the answers, its partition, and itself.
pub(super) type Returned = ((ShardId, usize), PartitionId, Batch);

/// Sends batches that came back to who owns them now, until they are taken or time is up; their results take the place of those in
/// `answered`.
pub(super) async fn again(call: &Call, deadline: Mono, mut returned: Vec<Returned>, answered: &mut Answered) {
    let edge = &call.edge;
    let mut tried = None;
    while !returned.is_empty() {
        let errors = returned.iter().filter_map(|((shard, at), ..)| answered.results[shard][*at].as_ref().err());
        let newer = gather::newest_move(errors).unwrap_or_default();
        if !wait(edge, newer, tried, deadline).await {
            return;
        }
        let snapshot = edge.snapshot();
        tried = Some(snapshot.generation);
        let mut shares: BTreeMap<ShardId, Vec<Returned>> = BTreeMap::new();
        // A topic that is gone is told by what the shard said.
        for batch in returned.drain(..).filter(|(_, id, _)| snapshot.topics_by_id.contains_key(&id.topic)) {
            shares.entry(snapshot.owner(batch.1)).or_default().push(batch);
        }
        let (lane, answers) = flume::unbounded();
        let mut asked = BTreeMap::new();
        for (shard, share) in shares {
            let (places, batches): (Vec<_>, Vec<_>) =
                share.into_iter().map(|(place, id, batch)| ((place, id), (id, batch))).unzip();
            let (generation, reply) = (snapshot.generation, ReplyTo::new(lane.clone(), u64::from(shard.0)));
            asked.insert(u64::from(shard.0), places);
            let append = AppendRequest { origin: Origin::Client, deadline, generation, batches, reply };
            edge.shard(shard).send(Request::Append(Box::new(append)));
        }
        drop(lane);
        while let Ok(answer) = answers.recv_async().await {
            let Some(places) = asked.remove(&answer.slot) else { continue };
            match answer.reply {
                Reply::Append { results, throttle, returned: back } => {
                    answered.pause = answered.pause.max(throttle);
                    returned.extend(back.into_iter().map(|(at, batch)| (places[at].0, places[at].1, batch)));
                    places.iter().zip(results).for_each(|((place, _), result)| answered.set(*place, result));
                }
                // It is stopping.
                _ => places.iter().for_each(|(place, _)| answered.set(*place, Err(PartitionError::Unavailable))),
            }
        }
    }
}

/// Waits until there is somebody else to ask; `false` when time is up.
async fn wait(edge: &Edge, newer: Newer, tried: Option<Generation>, deadline: Mono) -> bool {
    let late = async {
        edge.runtime.sleep_until(deadline).await;
        false
    };
    let ready = async {
        if newer.is_met_by(&edge.snapshot()) && tried == Some(edge.snapshot().generation) {
            // The shard is behind the snapshot, for a moment.
            gather::catch_up(edge, newer).await;
        } else {
            edge.snapshot_at(newer).await;
        }
        true
    };
    edge.runtime.mono() < deadline && or(ready, late).await
}
