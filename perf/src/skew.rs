//! How fast a broker evens its shards when all that is hot lies on one of them.
//!
//! Against a running Thalweg with two shards: the partitions of a topic lie on its shards in turns, so every second one is on the same. First
//! the load goes to as many partitions on both shards, for the figure to compare with; then to those on one, second by second.

use std::time::Duration;

use clap::Args;

use crate::{
    broker::metrics::Metrics,
    client::{
        closed::{self, Closed},
        topic::Topic,
    },
};

const APPENDED: &str = "thalweg_append_bytes_total";
const SECOND: Duration = Duration::from_secs(1);

/// Options of `skew`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Where it shows its metrics.
    #[arg(long, default_value = "127.0.0.1:9644")]
    http: String,
    /// Shards of the broker.
    #[arg(long, default_value_t = 2)]
    shards: i32,
    /// Hot partitions.
    #[arg(long, default_value_t = 16)]
    partitions: i32,
    /// Connections, each with a thread of its own.
    #[arg(long, default_value_t = 4)]
    connections: u16,
    /// Bytes of values in one batch.
    #[arg(long, default_value_t = 16 << 10)]
    batch_bytes: u32,
    /// Seconds on both shards, and then on one.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Name of the topics, which must be new.
    #[arg(long, default_value = "skew")]
    topic: String,
}

/// Runs both loads and says what came of each second.
///
/// # Errors
/// When the broker cannot be reached or refuses.
pub fn run(options: &Options) -> Result<(), String> {
    let even = Topic::ready(&options.bootstrap, &format!("{}-even", options.topic), options.partitions)?;
    let uneven = Topic::ready(
        &options.bootstrap,
        &format!("{}-uneven", options.topic),
        options.partitions.saturating_mul(options.shards),
    )?;
    let balanced = seconds(options, &even, 1)?;
    let mean = balanced.iter().map(|second| second.rate).sum::<f64>() / balanced.len().max(1) as f64;
    println!("on all shards: {}; mean {mean:.0} MB/s", in_words(&balanced));
    let skewed = seconds(options, &uneven, options.shards.unsigned_abs() as usize)?;
    println!("on one shard at first: {}", in_words(&skewed));
    let when = |holds: &dyn Fn(&Second) -> bool| match skewed.iter().position(holds) {
        Some(second) => format!("in second {}", second + 1),
        None => "never".to_owned(),
    };
    println!("the busiest shard has at most 10 % more than the mean: {}", when(&|second| second.excess <= 0.1));
    println!("at most 10 % slower than on all shards: {}", when(&|second| second.rate >= 0.9 * mean));
    Ok(())
}

/// One second of a load.
struct Second {
    /// MB of values acknowledged, each second.
    rate: f64,
    /// How much more than the mean the busiest shard appended, as a part of the mean.
    excess: f64,
}

fn seconds(options: &Options, topic: &Topic, every: usize) -> Result<Vec<Second>, String> {
    let load = Closed {
        connections: options.connections,
        in_flight: 5,
        record_bytes: 1024,
        batch_bytes: options.batch_bytes,
        batches_per_request: 1,
        every,
        bytes: u64::MAX >> 1,
        at_most: SECOND,
    };
    let second = |_| {
        let before = Metrics::read(&options.http)?;
        let sent = closed::produce(topic, load)?;
        let after = Metrics::read(&options.http)?;
        let appended = |shard: i32| after.since(&before, APPENDED, &[("shard", &shard.to_string())]);
        let shards: Vec<f64> = (0..options.shards).map(appended).collect();
        let mean = shards.iter().sum::<f64>() / shards.len().max(1) as f64;
        let excess = shards.iter().copied().fold(0.0, f64::max) / mean.max(1.0) - 1.0;
        Ok(Second { rate: sent.bytes as f64 / 1e6 / sent.seconds, excess })
    };
    (0..options.seconds).map(second).collect()
}

fn in_words(seconds: &[Second]) -> String {
    let one = |second: &Second| format!("{:.0} MB/s +{:.0} %", second.rate, second.excess * 100.0);
    seconds.iter().map(one).collect::<Vec<_>>().join(", ")
}
