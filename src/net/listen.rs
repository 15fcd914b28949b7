//! Listening sockets and accepted connections: the only module of the edge that sees glommio.
//!
//! Every executor listens on the same port (SO_REUSEPORT), which a [`Claim`] keeps from other processes, with one accept task that is never cancelled: dropping a
//! pending accept loses connections. The kernel's choice is a hash, so an accepted connection is handed to the executor
//! with the fewest. Stopping shuts the sockets down, which ends the accepts by themselves.
#![expect(
    clippy::disallowed_types,
    reason = "counts per address, shared by the executors: looked up, never iterated; locked at the beginning and end of connections"
)]

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream as StdStream},
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use glommio::net::{AcceptedTcpStream, TcpListener};
use socket2::{Domain, Protocol, Socket, Type};
use thalweg_shards::runtime::Queue;

use super::{ChunkPool, Ended, serve};
use crate::{
    api::{Caller, Edge},
    config::host::OWN_DESCRIPTORS,
};

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after an accept failed (out of descriptors): the next would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener tells its clients to connect to.
#[derive(Clone, Debug)]
pub struct Advertised {
    /// Host name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// An accepted connection on its way to the executor that will serve it.
pub struct Arrival {
    stream: AcceptedTcpStream,
    advertised: Advertised,
}

/// The connections of the whole process, shared by its executors.
pub struct Connections {
    loads: Vec<AtomicUsize>,
    lanes: Vec<flume::Sender<Arrival>>,
    per_ip: Mutex<HashMap<IpAddr, u32>>,
    listening: Mutex<Vec<StdStream>>,
    stopping: AtomicBool,
    /// The log was told that descriptors are short, and none was to spare since.
    short: AtomicBool,
}

/// Makes the shared counts and, for each of `executors`, the lane of connections handed to it.
pub fn connections(executors: usize) -> (Arc<Connections>, Vec<flume::Receiver<Arrival>>) {
    let (lanes, arrivals) = (0..executors).map(|_| flume::unbounded()).unzip();
    let shared = Connections {
        loads: (0..executors).map(|_| AtomicUsize::new(0)).collect(),
        lanes,
        per_ip: Mutex::default(),
        listening: Mutex::default(),
        stopping: AtomicBool::new(false),
        short: AtomicBool::new(false),
    };
    (Arc::new(shared), arrivals)
}

/// Times a taken address is tried again before it is given up, and the pause between.
const CLAIM_TRIES: u32 = 30;
const CLAIM_PAUSE: Duration = Duration::from_millis(50);

/// An address that no other process can listen on while this lives, although SO_REUSEPORT lets our executors share it.
///
/// It is a bound socket that does not listen, so nothing connects to it.
#[derive(Debug)]
pub struct Claim {
    address: SocketAddr,
    _bound: Socket,
}

impl Claim {
    /// The address, with the port that was found when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes `address` for this process, and finds a port when it is 0. Of two processes that ask for it at once, one gets it.
/// Call it before the executors start.
///
/// # Errors
/// That of the operating system; `AddrInUse` names the second broker.
#[expect(clippy::disallowed_methods, reason = "the main thread, before any shard")]
pub fn claim(address: SocketAddr) -> io::Result<Claim> {
    // The kernel may take a moment to close the sockets of a broker that was killed.
    let mut tries = CLAIM_TRIES;
    loop {
        tries -= 1;
        match claim_once(address) {
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(CLAIM_PAUSE),
            outcome => return outcome,
        }
    }
}

fn claim_once(address: SocketAddr) -> io::Result<Claim> {
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Else connections of the last broker that are in TIME_WAIT would keep it from starting again.
    bound.set_reuse_address(true)?;
    bound.bind(&address.into())?;
    if address.port() == 0 {
        // A port of the system's choice would be given back when the socket stops listening; one that was asked for is not.
        let found = bound.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))?;
        drop(bound);
        return claim_once(found);
    }
    // Several sockets that reuse an address may be bound to it; one may listen.
    bound.listen(1)?;
    // From here on nobody may be bound to it but sockets with SO_REUSEPORT, which others do not get as far as to make.
    bound.set_reuse_address(false)?;
    bound.set_reuse_port(true)?;
    bound.shutdown(Shutdown::Read)?;
    Ok(Claim { address, _bound: bound })
}

/// A socket that listens on an address claimed before, beside those of the other executors.
fn listening(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, StdStream)> {
    let socket = listening(address)?;
    let stopper = StdStream::from(OwnedFd::from(socket.try_clone()?));
    // SAFETY: the descriptor is a listening socket that is given away here.
    Ok((unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }, stopper))
}

impl Connections {
    /// Connections open on all executors.
    pub fn open(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// Stops accepting, on every executor; open connections live on. Safe from any thread.
    pub fn stop_accepting(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for socket in lock(&self.listening).drain(..) {
            let _already_down = socket.shutdown(Shutdown::Both);
        }
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The executor to serve the next connection: `home`, unless another has fewer.
    fn least_loaded(&self, home: usize) -> usize {
        let load = |at: usize| self.loads[at].load(Ordering::Relaxed);
        (0..self.loads.len()).min_by_key(|at| (load(*at), *at != home)).unwrap_or(home)
    }

    /// Whether a connection on this descriptor leaves enough to the broker: without one to open a file with, it cannot commit, and
    /// would have to end. Numbers are given from the lowest on, so the newest tells how many are in use.
    fn has_descriptors(&self, newest: RawFd) -> bool {
        let limit = descriptor_limit();
        let spare = u64::from(newest.unsigned_abs()) < limit - OWN_DESCRIPTORS.min(limit / 2);
        if spare {
            self.short.store(false, Ordering::Relaxed);
        } else if !self.short.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                limit,
                "connections are refused: the descriptors that are left are the broker's own; raise `ulimit -n`"
            );
        }
        spare
    }

    /// Counts a connection that the executor `home` serves, within the limits.
    fn enter(self: &Arc<Self>, edge: &Edge, peer: IpAddr) -> Option<Entered> {
        let home = usize::from(edge.home.0);
        let mut per_ip = lock(&self.per_ip);
        let of_ip = per_ip.entry(peer).or_insert(0);
        let (all, from_one) = edge.max_connections();
        if *of_ip >= from_one || self.open() > all as usize {
            return None;
        }
        *of_ip += 1;
        drop(per_ip);
        Some(Entered { shared: Arc::clone(self), peer, home })
    }
}

/// Descriptors that this process may have; read anew, for it can be changed from outside.
fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid struct that outlives the call.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if told == 0 { limit.rlim_cur } else { u64::MAX }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A counted connection.
struct Entered {
    shared: Arc<Connections>,
    peer: IpAddr,
    home: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.loads[self.home].fetch_sub(1, Ordering::Relaxed);
        let mut per_ip = lock(&self.shared.per_ip);
        if let Some(count) = per_ip.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&self.peer);
            }
        }
    }
}

/// Listens on `address` with a task of this executor, until [`Connections::stop_accepting`].
///
/// # Errors
/// When the socket cannot be bound.
pub fn listen(
    address: SocketAddr,
    advertised: Advertised,
    edge: &Rc<Edge>,
    shared: &Arc<Connections>,
) -> io::Result<()> {
    let (listener, stopper) = bind(address)?;
    lock(&shared.listening).push(stopper);
    let task = accept(listener, advertised, Rc::clone(edge), Arc::clone(shared));
    edge.runtime.spawn(Queue::Hot, "accept", Box::pin(task));
    Ok(())
}

async fn accept(listener: TcpListener, advertised: Advertised, edge: Rc<Edge>, shared: Arc<Connections>) {
    let home = usize::from(edge.home.0);
    while !shared.stopping() {
        match listener.shared_accept().await {
            Ok(stream) => {
                let to = shared.least_loaded(home);
                shared.loads[to].fetch_add(1, Ordering::Relaxed);
                let _stopping = shared.lanes[to].try_send(Arrival { stream, advertised: advertised.clone() });
            }
            Err(_) if shared.stopping() => return,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                edge.runtime.sleep_until(edge.runtime.mono().plus(ACCEPT_PAUSE)).await;
            }
        }
    }
}

/// Serves the connections that are handed to this executor, with a task each.
pub fn serve_arrivals(arrivals: flume::Receiver<Arrival>, edge: &Rc<Edge>, shared: &Arc<Connections>) {
    let (edge, shared) = (Rc::clone(edge), Arc::clone(shared));
    let runtime = Rc::clone(&edge.runtime);
    let task = async move {
        let pool = ChunkPool::default();
        while let Ok(arrival) = arrivals.recv_async().await {
            begin(arrival, &edge, &shared, &pool);
        }
    };
    runtime.spawn(Queue::Hot, "arrivals", Box::pin(task));
}

fn begin(arrival: Arrival, edge: &Rc<Edge>, shared: &Arc<Connections>, pool: &ChunkPool) {
    let stream = arrival.stream.bind_to_executor();
    // A client that is gone already has no address.
    let welcome = stream.peer_addr().ok().filter(|_| shared.has_descriptors(stream.as_raw_fd()));
    let entered = welcome.and_then(|peer| Some((peer, shared.enter(edge, peer.ip())?)));
    let Some((peer, entered)) = entered else {
        shared.loads[usize::from(edge.home.0)].fetch_sub(1, Ordering::Relaxed);
        edge.meters.connections.refused.increment(1);
        tracing::debug!("connection refused: gone, beyond max.connections, or too few descriptors");
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let Advertised { host, port } = arrival.advertised;
    let caller = Rc::new(Caller::new(edge.next_connection(), peer, host, port));
    let (connection_edge, pool) = (Rc::clone(edge), pool.clone());
    let task = async move {
        let edge = Rc::clone(&connection_edge);
        let meters = &edge.meters.connections;
        meters.accepted.increment(1);
        meters.open.increment(1.0);
        let ended = serve(stream, connection_edge, caller, pool).await;
        meters.open.decrement(1.0);
        if ended.is_drop() {
            meters.dropped.increment(1);
        }
        drop(entered);
        log_end(peer, &ended);
    };
    edge.runtime.spawn(Queue::Hot, "connection", Box::pin(task));
}

fn log_end(peer: SocketAddr, ended: &Ended) {
    match ended {
        Ended::Eof | Ended::Idle | Ended::Stopping | Ended::Write(_) => tracing::debug!(%peer, why = %ended, "closed"),
        _ => tracing::info!(%peer, why = %ended, "connection closed"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener as StdListener;

    use super::*;

    #[test]
    fn a_port_that_another_holds_is_not_claimed() {
        let held = StdListener::bind("127.0.0.1:0").expect("a port");
        let taken = held.local_addr().expect("an address");
        assert_eq!(claim(taken).expect_err("in use").kind(), io::ErrorKind::AddrInUse);
        let shared = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        shared.set_reuse_port(true).expect("the option");
        shared.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("bound");
        shared.listen(1).expect("listening");
        let taken = shared.local_addr().expect("an address").as_socket().expect("IP");
        assert_eq!(claim(taken).expect_err("SO_REUSEPORT does not hide it").kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_claim_keeps_others_away_and_lets_our_listeners_in() {
        let claimed = claim("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let address = claimed.address();
        assert_ne!(address.port(), 0);
        let kind = |outcome: io::Result<Claim>| outcome.expect_err("in use").kind();
        assert_eq!(kind(claim_once(address)), io::ErrorKind::AddrInUse);
        assert!(StdStream::connect(address).is_err(), "nothing listens yet");
        let executors: Vec<Socket> = (0..3).map(|_| listening(address).expect("ours")).collect();
        assert_eq!(kind(claim_once(address)), io::ErrorKind::AddrInUse);
        StdStream::connect(address).expect("an executor listens");
        drop(executors);
        assert_eq!(kind(claim_once(address)), io::ErrorKind::AddrInUse, "it is ours to the end");
        drop(claimed);
        assert_eq!(claim(address).expect("free again").address(), address);
    }

    #[test]
    fn one_of_those_who_ask_at_once_gets_it() {
        for _ in 0..20 {
            let address = claim("127.0.0.1:0".parse().expect("an address")).expect("a port").address();
            let start = std::sync::Barrier::new(8);
            let claims: Vec<io::Result<Claim>> = std::thread::scope(|scope| {
                let ask = || {
                    start.wait();
                    claim_once(address)
                };
                let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
                asking.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert!(claims.iter().filter(|claim| claim.is_ok()).count() <= 1, "{claims:?}");
        }
    }

    #[test]
    fn the_emptiest_executor_is_chosen_and_home_wins_a_tie() {
        let (shared, _arrivals) = connections(3);
        assert_eq!(shared.least_loaded(2), 2);
        shared.loads[2].store(1, Ordering::Relaxed);
        assert_eq!(shared.least_loaded(2), 0);
        shared.loads[0].store(4, Ordering::Relaxed);
        assert_eq!(shared.least_loaded(2), 1);
    }
}
