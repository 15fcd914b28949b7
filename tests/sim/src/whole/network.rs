//! How clients reach the cores of one life: a stream in memory into the production connection, on the core that they find.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use thalweg::{
    api::{Caller, Edge},
    broker::Network,
    net::{self, ChunkPool},
};
use thalweg_shards::runtime::{Queue, seeded::Stream};

use super::{
    host::OneThread,
    stream::{End, connection},
};

/// The host that clients are told of.
pub(crate) const HOST: &str = "simulated";
/// Its port.
pub(crate) const PORT: u16 = 9092;

/// The open cores.
pub(crate) struct SimulatedNetwork(OneThread<State>);

#[derive(Default)]
struct State {
    edges: RefCell<BTreeMap<u16, Rc<Edge>>>,
    closed: Cell<bool>,
    connected: Rc<Cell<usize>>,
}

struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl SimulatedNetwork {
    pub(crate) fn new() -> Arc<SimulatedNetwork> {
        Arc::new(SimulatedNetwork(OneThread::new(State::default())))
    }

    /// A new connection to any core; none when nothing listens.
    pub(crate) fn connect(&self, random: &mut Stream) -> Option<End> {
        let state = self.0.get();
        let edges = state.edges.borrow();
        if state.closed.get() || edges.is_empty() {
            return None;
        }
        let edge = edges.values().nth(random.below(edges.len() as u64) as usize)?.clone();
        let (ours, theirs) = connection(random);
        state.connected.set(state.connected.get() + 1);
        let counted = Counted(state.connected.clone());
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let caller = Rc::new(Caller::new(edge.next_connection(), peer, HOST.into(), PORT));
        let runtime = edge.runtime.clone();
        let task = async move {
            let _ended = net::serve(theirs, edge, caller, ChunkPool::default()).await;
            drop(counted);
        };
        runtime.spawn(Queue::Hot, "connection", Box::pin(task));
        Some(ours)
    }

    /// Forgets the cores: the process is gone.
    pub(crate) fn crash(&self) {
        let state = self.0.get();
        state.closed.set(true);
        drop(state.edges.take());
    }
}

impl Network for SimulatedNetwork {
    fn open(&self, edge: &Rc<Edge>) -> Result<(), String> {
        self.0.get().edges.borrow_mut().insert(edge.home.0, edge.clone());
        Ok(())
    }

    fn stop_accepting(&self) {
        self.0.get().closed.set(true);
    }

    fn connected(&self) -> usize {
        self.0.get().connected.get()
    }
}
