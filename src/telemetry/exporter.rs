//! The recorder that all handles report to, and the text that Prometheus reads.

use std::sync::Arc;

use metrics::with_recorder;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use thalweg_shards::meters::{Kind, Metric, SHARD_METRICS, STORE_METRICS};

use super::{
    edge::{CONNECTION_METRICS, ERROR_METRICS, GROUP_METRICS, REQUEST_METRICS, SESSION_METRICS},
    lag::LAG_METRICS,
    process::{BUILD_METRICS, PROCESS_METRICS, ProcessMeters},
};
use crate::{
    broker::BALLAST_METRICS,
    cluster::{BALANCER_METRICS, BUCKET_METRICS},
};

/// All metrics, table by table.
pub fn tables() -> impl Iterator<Item = &'static Metric> {
    let tables = [
        REQUEST_METRICS,
        ERROR_METRICS,
        CONNECTION_METRICS,
        SESSION_METRICS,
        GROUP_METRICS,
        LAG_METRICS,
        SHARD_METRICS,
        STORE_METRICS,
        BUCKET_METRICS,
        BALANCER_METRICS,
        BALLAST_METRICS,
        PROCESS_METRICS,
        BUILD_METRICS,
    ];
    tables.into_iter().flatten()
}

/// The process's recorder.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    process: Arc<ProcessMeters>,
}

impl Exporter {
    /// Makes every handle that is registered from now on count. Once in a process, before shards start.
    ///
    /// # Errors
    /// When the process has a recorder already.
    pub fn install() -> Result<Exporter, BuildError> {
        let handle = builder()?.install_recorder()?;
        describe();
        Ok(Exporter { handle, process: Arc::new(ProcessMeters::new()) })
    }

    /// The text of `/metrics`, without consumer lag ([`super::Lags`]). Takes milliseconds: never on a shard.
    pub fn render(&self, ready: bool) -> String {
        self.process.sample(ready);
        self.handle.render()
    }

    /// Moves histograms' samples into their buckets; every few seconds, or they pile up.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Histograms with their buckets.
fn builder() -> Result<PrometheusBuilder, BuildError> {
    tables()
        .filter(|m| m.kind == Kind::Histogram)
        .try_fold(PrometheusBuilder::new(), |b, m| b.set_buckets_for_metric(Matcher::Full(m.name.into()), m.buckets))
}

/// Tells the recorder what each metric means.
fn describe() {
    with_recorder(|recorder| {
        for metric in tables() {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram => recorder.describe_histogram(name, None, help),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use metrics::with_local_recorder;
    use thalweg_record::ShardId;
    use thalweg_shards::meters::{ShardMeters, StoreMeters};

    use super::*;
    use crate::{
        api::ErrorTally,
        broker::BallastMeters,
        cluster::{BalancerMeters, BucketMeters},
        telemetry::{EdgeMeters, GroupMeters},
    };

    /// Everything registered, as /metrics shows it.
    fn rendered() -> String {
        let recorder = builder().expect("buckets").build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            describe();
            let (shard, store, edge) = (ShardMeters::new(ShardId(0)), StoreMeters::new(), EdgeMeters::new(ShardId(0)));
            GroupMeters::new(ShardId(0));
            BucketMeters::new();
            let balancer = BalancerMeters::new("bytes");
            balancer.seconds.record(0.01);
            BallastMeters::new();
            ProcessMeters::new().sample(true);
            let mut tally = ErrorTally::default();
            [0, 3, 3].into_iter().for_each(|code| tally.add(code));
            edge.errors(0, &tally);
            edge.requests(0).expect("Produce is served").seconds.record(0.003);
            for h in [&shard.wal_group_bytes, &shard.wal_commit_seconds, &shard.turn_seconds, &shard.upload_seconds] {
                h.record(0.5);
            }
            store.seconds.get.record(0.5);
            shard.reads.ring.increment(2);
        });
        handle.run_upkeep();
        handle.render()
    }

    /// The tables of what is registered with the recorder.
    fn registered() -> impl Iterator<Item = &'static Metric> {
        tables().filter(|m| LAG_METRICS.iter().all(|lag| lag.name != m.name))
    }

    #[test]
    fn what_is_registered_is_what_the_tables_list() {
        let text = rendered();
        let shown: BTreeMap<&str, &str> =
            text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let listed: BTreeMap<&str, &str> = registered()
            .map(|m| match m.kind {
                Kind::Counter => (m.name, "counter"),
                Kind::Gauge => (m.name, "gauge"),
                Kind::Histogram => (m.name, "histogram"),
            })
            .collect();
        assert_eq!(shown, listed);
        for metric in registered() {
            assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{}", metric.name);
        }
    }

    #[test]
    fn labels_and_buckets_are_as_listed() {
        let text = rendered();
        for line in [
            "thalweg_request_errors_total{api=\"Produce\",code=\"3\"} 2",
            "thalweg_reads_total{shard=\"0\",tier=\"ring\"} 2",
            "thalweg_request_seconds_bucket{api=\"Produce\",le=\"0.005\"} 1",
            "thalweg_request_seconds_bucket{api=\"Produce\",le=\"0.002\"} 0",
            "thalweg_groups{shard=\"0\",state=\"stable\"} 0",
            "thalweg_ready 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        for metric in registered() {
            let series = text.lines().find(|l| {
                l.strip_prefix(metric.name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_bucket"))
            });
            let series = series.unwrap_or_else(|| panic!("{} has a series", metric.name));
            for label in metric.labels() {
                assert!(series.contains(&format!("{label}=\"")), "{series}");
            }
        }
    }

    #[test]
    fn the_document_lists_the_tables() {
        let document = include_str!("../../docs/metrics.md");
        let listed: BTreeSet<String> =
            document.lines().filter(|l| l.starts_with("| `")).map(ToOwned::to_owned).collect();
        let rows: BTreeSet<String> = tables().map(row).collect();
        let missing: Vec<_> = rows.difference(&listed).map(String::as_str).collect();
        assert!(missing.is_empty(), "docs/metrics.md misses:\n{}", missing.join("\n"));
        let gone: Vec<_> = listed.difference(&rows).map(String::as_str).collect();
        assert!(gone.is_empty(), "docs/metrics.md lists what is not there:\n{}", gone.join("\n"));
    }

    fn row(m: &Metric) -> String {
        let kind = format!("{:?}", m.kind).to_lowercase();
        let labels: Vec<_> = m.labels().map(|l| format!("`{l}`")).collect();
        format!("| `{}` | {kind} | {} | {} | {} |", m.name, m.unit, labels.join(", "), m.help)
    }
}
