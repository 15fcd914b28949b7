//! The HTTP endpoint: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever looks after the process.
//!
//! Runs on the tokio runtime; a slow or hostile client of it costs the shards nothing.
#![expect(clippy::disallowed_methods, reason = "lives in the tokio world")]

use std::{
    io,
    net::TcpListener as StdListener,
    time::{Duration, Instant},
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, time::interval};

use super::{Exporter, Health, Lags};

/// How often histograms' samples are moved into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);
/// Prometheus' text format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `stop` completes; connections that are idle then are closed. Keeps the exporter in order as well, so it
/// is to run even without a listener (`None`).
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    listener: Option<StdListener>,
    exporter: Exporter,
    lags: Lags,
    health: Health,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let upkeep = tokio::spawn(upkeep(exporter.clone()));
    let served = match listener {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            axum::serve(listener, routes(exporter, lags, health)).with_graceful_shutdown(stop).await
        }
        None => {
            stop.await;
            Ok(())
        }
    };
    upkeep.abort();
    served
}

async fn upkeep(exporter: Exporter) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        exporter.run_upkeep();
    }
}

fn routes(exporter: Exporter, lags: Lags, health: Health) -> Router {
    let (of_metrics, of_health, of_ready) = (health.clone(), health.clone(), health);
    let metrics = async move || {
        let lags = lags.render().await;
        ([(CONTENT_TYPE, METRICS_TEXT)], exporter.render(of_metrics.ready().is_ok()) + &lags)
    };
    let healthz = async move || answer(of_health.alive(Instant::now()));
    let readyz = async move || answer(of_ready.ready());
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

fn answer(state: Result<(), String>) -> impl IntoResponse {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
    };

    use tokio::sync::oneshot;

    use super::*;
    use crate::telemetry::Stage;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }

    #[test]
    fn the_three_paths_answer_and_the_server_stops() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio");
        let listener = StdListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let (health, exporter) = (Health::new(), Exporter::install().expect("the first recorder of this process"));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopping = async move { drop(stopped.await) };
        let serving = runtime.spawn(serve(Some(listener), exporter, Lags::default(), health.clone(), stopping));
        let starting = ask(address, "/readyz");
        assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("starting: "), "{starting}");
        assert!(ask(address, "/metrics").contains("\nthalweg_ready 0\n"));
        health.set(Stage::Ready);
        assert!(ask(address, "/readyz").starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/healthz").ends_with("ok\n"));
        let metrics = ask(address, "/metrics");
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(
            metrics.contains("\nthalweg_ready 1\n") && metrics.contains("thalweg_build_info{version="),
            "{metrics}"
        );
        assert!(ask(address, "/other").starts_with("HTTP/1.1 404"));
        stop.send(()).expect("still serving");
        runtime.block_on(serving).expect("no panic").expect("no error");
    }
}
