//! What all clients of a run share, and how they reach the broker that is up.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use thalweg_record::PartitionId;
use thalweg_shards::{
    mailbox::ShardLane,
    msg::Request,
    runtime::{Runtime, seeded::World},
};

use crate::model::Model;

/// The clients' world.
pub(crate) struct Scene {
    pub(crate) world: Rc<World>,
    pub(crate) runtime: Rc<dyn Runtime>,
    pub(crate) model: RefCell<Model>,
    /// Where the broker is; `None` while it is down.
    pub(crate) address: RefCell<Option<ShardLane>>,
    pub(crate) partitions: Vec<PartitionId>,
    /// Readers end.
    pub(crate) stop: Cell<bool>,
    /// Clients that have ended.
    pub(crate) ended: Cell<usize>,
    /// Reads answered from memory, and later.
    pub(crate) at_once: Cell<u64>,
    pub(crate) late: Cell<u64>,
    pub(crate) trace: bool,
}

impl Scene {
    /// Sends to the broker. When it is down the request is dropped, and with it the right to answer.
    pub(crate) fn send(&self, request: Request) {
        let lane = self.address.borrow().clone();
        if let Some(lane) = lane {
            lane.send(request);
        }
    }

    pub(crate) async fn pause(&self, duration: Duration) {
        self.runtime.sleep_until(self.runtime.mono().plus(duration)).await;
    }

    /// Says what happens, for whoever follows one seed.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.world.mono().0 as f64 / 1e9, what());
        }
    }
}
