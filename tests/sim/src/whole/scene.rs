//! What all clients of a run share, and how they reach the broker that is up.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use thalweg_record::{Offset, PartitionId, TopicId};
use thalweg_shards::runtime::{
    LocalBoxFuture, Queue, Runtime,
    seeded::{Stream, World},
};

use super::{network::SimulatedNetwork, stream::End};
use crate::{keyed::Moment, model::Model};

/// How far a topic is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Its creation was answered.
    Live,
    /// Its deletion was asked for.
    Going,
    /// Its deletion was answered.
    Gone,
}

/// A topic that was created.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: TopicId,
    pub(crate) partitions: i32,
    pub(crate) life: Life,
}

/// Offsets that a group has committed: what was acknowledged, by group and partition.
pub(crate) type Committed = BTreeMap<(&'static str, PartitionId), i64>;

/// The clients' world.
pub(crate) struct Scene {
    pub(crate) world: Rc<World>,
    pub(crate) runtime: Rc<dyn Runtime>,
    pub(crate) model: RefCell<Model>,
    /// Where the broker is; `None` while it is down.
    pub(crate) address: RefCell<Option<Arc<SimulatedNetwork>>>,
    pub(crate) topics: RefCell<Vec<Topic>>,
    pub(crate) committed: RefCell<Committed>,
    /// No more new work: producers finish what they have.
    pub(crate) settle: Cell<bool>,
    /// Readers and groups end.
    pub(crate) stop: Cell<bool>,
    /// Nothing stands in the way of an answer.
    pub(crate) calm: Cell<bool>,
    /// Producers, and other clients, that have not ended.
    pub(crate) producing: Cell<usize>,
    pub(crate) working: Cell<usize>,
    pub(crate) commits: Cell<u64>,
    pub(crate) deletions: Cell<u64>,
    /// How often a setting that refuses large batches was asked for and taken back: odd while it may be in force.
    pub(crate) limits: Cell<u64>,
    pub(crate) alterations: Cell<u64>,
    pub(crate) sessions: Cell<u64>,
    pub(crate) look_ups: Cell<u64>,
    /// Partitions that went to another shard.
    pub(crate) moves: Cell<u64>,
    pub(crate) trace: bool,
}

impl Scene {
    /// The limit on batches is about to be asked for, or is surely gone.
    pub(crate) fn turn_limit(&self) {
        self.limits.set(self.limits.get() + 1);
    }

    /// A connection to the broker that is up.
    pub(crate) fn connect(&self, random: &mut Stream) -> Option<End> {
        self.address.borrow().as_ref()?.connect(random)
    }

    pub(crate) async fn pause(&self, duration: Duration) {
        self.runtime.sleep_until(self.runtime.mono().plus(duration)).await;
    }

    /// Starts a client that counts as one of `group` until it ends.
    pub(crate) fn begin(
        self: &Rc<Self>,
        group: fn(&Scene) -> &Cell<usize>,
        name: &'static str,
        client: LocalBoxFuture<'static, ()>,
    ) {
        let count = group(self);
        count.set(count.get() + 1);
        let scene = self.clone();
        let task = async move {
            client.await;
            let count = group(&scene);
            count.set(count.get() - 1);
        };
        self.runtime.spawn(Queue::Hot, name, Box::pin(task));
    }

    /// How far a topic is.
    pub(crate) fn life(&self, id: TopicId) -> Life {
        let topics = self.topics.borrow();
        topics.iter().find(|topic| topic.id == id).map_or(Life::Gone, |topic| topic.life)
    }

    pub(crate) fn set_life(&self, id: TopicId, life: Life) {
        self.topics.borrow_mut().iter_mut().filter(|topic| topic.id == id).for_each(|topic| topic.life = life);
    }

    /// The partitions of topics that are `life`.
    pub(crate) fn partitions(&self, life: Life) -> Vec<PartitionId> {
        let topics = self.topics.borrow();
        let of = |topic: &Topic| {
            let topic_id = topic.id;
            (0..topic.partitions).map(move |index| PartitionId { topic: topic_id, index })
        };
        topics.iter().filter(|topic| topic.life == life).flat_map(of).collect()
    }

    /// The name of a topic.
    pub(crate) fn name(&self, id: TopicId) -> String {
        self.topics.borrow().iter().find(|topic| topic.id == id).map(|topic| topic.name.clone()).unwrap_or_default()
    }

    /// Waits for a topic of that name to live; `None` when the run settles before.
    pub(crate) async fn topic(&self, name: &str) -> Option<Topic> {
        loop {
            let live = |topic: &&Topic| topic.name == name && topic.life == Life::Live;
            if let Some(found) = self.topics.borrow().iter().find(live) {
                return Some(found.clone());
            }
            if self.stop.get() {
                return None;
            }
            self.pause(Duration::from_millis(50)).await;
        }
    }

    /// The least that the high watermark may be.
    pub(crate) fn floor(&self, partition: PartitionId) -> Offset {
        self.model.borrow().floor(partition)
    }

    /// What the clocks say.
    pub(crate) fn moment(&self) -> Moment {
        Moment { mono: self.runtime.mono(), wall: self.runtime.wall() }
    }

    /// Says what happens, for whoever follows one seed.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.world.mono().0 as f64 / 1e9, what());
        }
    }
}
