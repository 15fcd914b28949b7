//! How fast a broker evens its shards when all that is hot lies on one of them.
//!
//! Against a running Thalweg with two shards: the partitions of a topic lie on its shards in turns, so every second one is on the same. First
//! the load goes to as many partitions on both shards, for the figure to compare with; then to those on one, second by second.

use std::time::Duration;

use clap::Args;

use crate::client::{
    closed::{self, Closed},
    topic::Topic,
};

const SECOND: Duration = Duration::from_secs(1);

/// Options of `skew`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
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
    let mean = balanced.iter().sum::<f64>() / balanced.len().max(1) as f64;
    println!("on all shards: {} MB/s; mean {mean:.0}", in_words(&balanced));
    let skewed = seconds(options, &uneven, options.shards.unsigned_abs() as usize)?;
    println!("on one shard at first: {} MB/s", in_words(&skewed));
    match skewed.iter().position(|rate| *rate >= 0.9 * mean) {
        Some(second) => println!("within 10 % of the mean in second {}", second + 1),
        None => println!("never within 10 % of the mean"),
    }
    Ok(())
}

fn seconds(options: &Options, topic: &Topic, every: usize) -> Result<Vec<f64>, String> {
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
    let rate = |_| closed::produce(topic, load).map(|sent| sent.bytes as f64 / 1e6 / sent.seconds);
    (0..options.seconds).map(rate).collect()
}

fn in_words(rates: &[f64]) -> String {
    rates.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(" ")
}
