//! Runs a broker on this machine: checks, the start, the wait, the stop.
#![expect(clippy::disallowed_methods, reason = "the main thread waits for the broker's parts")]

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use flume::Receiver;
use futures_lite::future;
use thalweg_shards::runtime::mono_now;

use super::{
    Broker, BrokerParts, Ports, StartError, ballast::Ballast, metadata, slices, stores, tcp::Tcp, threads::Threads,
};
use crate::{
    cluster::Cluster,
    config::{Config, Endpoint, host},
    net::{self, Advertised, Claim, EdgeLimits},
    telemetry::{self, Exporter, Health, Lags, Stage},
};

/// Tells a running broker to stop: any message does.
pub type StopSignal = Receiver<()>;

/// What a broker that serves says of itself.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Addresses that Kafka clients may connect to.
    pub kafka: Vec<SocketAddr>,
    /// The HTTP endpoint.
    pub http: Option<SocketAddr>,
    /// Shards.
    pub shards: u16,
    /// From the call to serving, in milliseconds.
    pub start_ms: u64,
}

/// Starts a broker on `ports`, calls `ready` once it serves, and returns after a stop. With `accept_loss` it starts although a WAL
/// slice is missing or damaged, and says what is lost.
///
/// # Errors
/// Why it does not start; or, with [`StartError::after_start`], why it could not go on.
pub fn serve(
    config: Config,
    ports: &Ports,
    accept_loss: bool,
    stop: &StopSignal,
    ready: impl FnOnce(&Ready),
) -> Result<(), StartError> {
    let began = mono_now();
    let (failed, failures) = flume::unbounded();
    for warning in host::check(&config).map_err(StartError::Problems)? {
        tracing::warn!("{warning}");
    }
    let config = Arc::new(config);
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("thalweg-tokio")
        .enable_all()
        .build()?;
    let claims = claims(&config)?;
    let addresses = addresses(&config, &claims);
    let (health, lags) = (Health::new(), Lags::default());
    let http = telemetry(&config, &health, &lags, &tokio)?;
    if !Cluster::present(&config.data_dir) {
        let own = metadata::owner(&config, &*ports.files, tokio.handle());
        slices::refuse_strangers(&*ports.files, &config.wal_path, own)?;
    }
    // On a full disk nothing opens without its room.
    let ballast = Ballast::find(&config);
    let _watch = ballast.watch()?;
    let store = stores::open(&config, tokio.handle())?;
    let broker = future::block_on(Broker::start(BrokerParts {
        config: config.clone(),
        ports: ports.clone(),
        accept_loss,
        advertised: addresses.first().map(|(_, told)| told.clone()),
        mailbox_messages: EdgeLimits::default().shard_messages,
        bucket: Some(metadata::bucket_ports(&config, &store, tokio.handle())),
        store,
        host: Arc::new(Threads::new(tokio.handle().clone(), health.clone()).with_ballast(ballast.clone())),
        network: Arc::new(Tcp::new(config.shards, addresses.clone())),
        failed,
    }))?;
    ballast.allow();
    lags.connect(broker.shards(), broker.groups());
    health.set(Stage::Ready);
    let start_ms = mono_now().since(began).as_millis() as u64;
    let kafka = addresses.iter().map(|(address, _)| *address).collect();
    ready(&Ready { kafka, http, shards: config.shards, start_ms });
    let told = async {
        let _told = stop.recv_async().await;
        None
    };
    let failure = future::block_on(future::or(async { failures.recv_async().await.ok() }, told));
    health.set(Stage::Stopping("uploading what the WAL holds"));
    if let Some(why) = &failure {
        tracing::error!(why, "the broker cannot go on; it uploads what is durable and stops");
    }
    future::block_on(broker.stop(Duration::from_millis(config.shutdown_timeout_ms)))?;
    tokio.shutdown_timeout(Duration::from_secs(1));
    // What fails during the stop counts too.
    failure.or_else(|| failures.try_recv().ok()).map_or(Ok(()), |why| Err(StartError::Failed(why)))
}

/// Takes the addresses of the listeners, in order, until the broker has ended.
fn claims(config: &Config) -> Result<Vec<Claim>, StartError> {
    let take = |endpoint: &Endpoint| endpoint.resolve().and_then(net::claim);
    config.listeners.iter().map(|e| take(e).map_err(|error| refused("listeners", e, &error))).collect()
}

/// The addresses to listen on, with what clients of each are told; port 0 is resolved to the port chosen.
fn addresses(config: &Config, claims: &[Claim]) -> Vec<(SocketAddr, Advertised)> {
    let tell = |(claim, told): (&Claim, &Endpoint)| {
        let address = claim.address();
        let port = if told.port == 0 { address.port() } else { told.port };
        (address, Advertised { host: told.host.as_str().into(), port })
    };
    claims.iter().zip(&config.advertised_listeners).map(tell).collect()
}

fn refused(key: &'static str, endpoint: &Endpoint, error: &std::io::Error) -> StartError {
    StartError::Listen { key, why: host::refusal(endpoint, error) }
}

fn telemetry(
    config: &Config,
    health: &Health,
    lags: &Lags,
    tokio: &tokio::runtime::Runtime,
) -> Result<Option<SocketAddr>, StartError> {
    let exporter = Exporter::install().map_err(|e| std::io::Error::other(e.to_string()))?;
    let bind = |endpoint: &Endpoint| endpoint.resolve().and_then(TcpListener::bind);
    let listener = match &config.http_listen {
        None => None,
        Some(endpoint) => Some(bind(endpoint).map_err(|e| refused("http.listen", endpoint, &e))?),
    };
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let (health, lags) = (health.clone(), lags.clone());
    tokio.spawn(async move {
        // It serves until the runtime is shut down, so that /readyz tells of the stop.
        if let Err(error) = telemetry::serve(listener, exporter, lags, health, std::future::pending()).await {
            tracing::error!(%error, "the HTTP endpoint ended");
        }
    });
    Ok(address)
}
