//! The machine's [`Network`]: every core listens on the same addresses, and takes connections that others hand to it.
#![expect(clippy::disallowed_types, reason = "taken once by each core, at the start")]

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use flume::Receiver;

use super::Network;
use crate::{
    api::Edge,
    net::{self, Advertised, Arrival, Connections},
};

/// Listeners of all cores.
pub(super) struct Tcp {
    connections: Arc<Connections>,
    addresses: Vec<(SocketAddr, Advertised)>,
    /// For each core, until it is open.
    arrivals: Mutex<Vec<Option<Receiver<Arrival>>>>,
}

impl Tcp {
    /// Nothing listens yet. The addresses are claimed.
    pub(super) fn new(cores: u16, addresses: Vec<(SocketAddr, Advertised)>) -> Tcp {
        let (connections, arrivals) = net::connections(usize::from(cores));
        Tcp { connections, addresses, arrivals: Mutex::new(arrivals.into_iter().map(Some).collect()) }
    }
}

impl Network for Tcp {
    fn open(&self, edge: &Rc<Edge>) -> Result<(), String> {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(edge.home.0)].take();
        net::serve_arrivals(arrivals.ok_or("a core opens once")?, edge, &self.connections);
        for (address, advertised) in &self.addresses {
            net::listen(*address, advertised.clone(), edge, &self.connections)
                .map_err(|e| format!("listeners: cannot listen on {address}: {e}"))?;
        }
        Ok(())
    }

    fn stop_accepting(&self) {
        self.connections.stop_accepting();
    }

    fn connected(&self) -> usize {
        self.connections.open()
    }
}
