//! `produce`, `consume`, `latency`: one load against a broker that somebody else started.

use std::time::Duration;

use clap::Args;

use crate::{
    client::{
        closed::{self, Closed},
        open::{self, Open},
        reader,
        schedule::Spread,
        topic::Topic,
    },
    figures,
};

/// Which topic of which broker.
#[derive(Args, Clone, Debug)]
struct Target {
    /// Where the broker listens.
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// The topic; created when it is missing.
    #[arg(long, default_value = "perf")]
    topic: String,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Connections, each with a thread of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Bytes in the value of one record.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    record_bytes: u32,
}

impl Target {
    fn topic(&self) -> Result<Topic, String> {
        Topic::ready(&self.bootstrap, &self.topic, self.partitions)
    }
}

/// Options of `produce`.
#[derive(Args, Clone, Debug)]
pub struct Produce {
    #[command(flatten)]
    target: Target,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Bytes of values in one batch.
    #[arg(long, default_value_t = 64 << 10)]
    batch_bytes: u32,
    /// Batches in one request, each for another partition.
    #[arg(long, default_value_t = 1)]
    batches_per_request: u32,
    /// Send to every n-th partition only. With as many shards, these lie on one of them, unless they move.
    #[arg(long, default_value_t = 1)]
    every: usize,
    /// GiB of values to send, over all connections.
    #[arg(long, default_value_t = 1.0)]
    gigabytes: f64,
}

/// Options of `consume`.
#[derive(Args, Clone, Debug)]
pub struct Consume {
    #[command(flatten)]
    target: Target,
}

/// Options of `latency`.
#[derive(Args, Clone, Debug)]
pub struct Latency {
    #[command(flatten)]
    target: Target,
    /// The load on offer, in MB of values per second.
    #[arg(long, default_value_t = 20.0)]
    megabytes_per_s: f64,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long a record waits for company, in milliseconds.
    #[arg(long, default_value_t = 1.0)]
    linger_ms: f64,
    /// Spread what is due over all partitions, as records with keys are.
    #[arg(long)]
    keys: bool,
}

/// Sends the load and says how fast it went.
///
/// # Errors
/// When the broker cannot be reached or refuses.
pub fn produce(options: &Produce) -> Result<(), String> {
    let sent = closed::produce(
        &options.target.topic()?,
        Closed {
            connections: options.target.connections,
            in_flight: usize::from(options.in_flight),
            record_bytes: options.target.record_bytes,
            batch_bytes: options.batch_bytes,
            batches_per_request: options.batches_per_request,
            every: options.every,
            bytes: (options.gigabytes * figures::GIB) as u64,
            at_most: Duration::from_secs(86_400),
        },
    )?;
    println!(
        "{:.0} MB/s, {:.0} records/s in {:.2} s, {} requests refused and sent again; requests: {}",
        sent.bytes as f64 / 1e6 / sent.seconds,
        sent.records as f64 / sent.seconds,
        sent.seconds,
        sent.refused,
        in_words(&figures::Latency::of(&sent.latency_us)),
    );
    Ok(())
}

/// Reads the topic from the start and says how fast that went.
///
/// # Errors
/// When the broker cannot be reached, refuses, or an offset is missing.
pub fn consume(options: &Consume) -> Result<(), String> {
    let target = &options.target;
    let topic = Topic::existing(&target.bootstrap, &target.topic, target.partitions);
    let read = reader::catch_up(&topic, target.connections)?;
    println!(
        "{:.0} MB/s if values have {} bytes, {:.0} records/s: {} records in {:.2} s",
        (read.records * u64::from(target.record_bytes)) as f64 / 1e6 / read.seconds,
        target.record_bytes,
        read.records as f64 / read.seconds,
        read.records,
        read.seconds,
    );
    Ok(())
}

/// Offers the load and says how long records took.
///
/// # Errors
/// When the broker cannot be reached or refuses.
pub fn latency(options: &Latency) -> Result<(), String> {
    let topic = options.target.topic()?;
    let load = Open {
        records_per_s: options.megabytes_per_s * 1e6 / f64::from(options.target.record_bytes),
        record_bytes: options.target.record_bytes,
        batch_bytes: 64 << 10,
        linger: Duration::from_secs_f64(options.linger_ms / 1000.0),
        spread: if options.keys { Spread::Keyed } else { Spread::Sticky },
        producers: options.target.connections,
        seconds: options.seconds,
        places: false,
    };
    let paced = open::produce(&topic, load, open::start_clock())?;
    println!(
        "{} of {} records acknowledged in {:.2} s, {} refused, {} not sent in time; records: {}; the client was late by: {}",
        paced.records,
        paced.due,
        paced.seconds,
        paced.refused,
        paced.unsent,
        in_words(&figures::Latency::of(&paced.latency_us)),
        in_words(&figures::Latency::of(&paced.lateness_us)),
    );
    Ok(())
}

fn in_words(latency: &figures::Latency) -> String {
    let us = |q| latency.quantile_us(q);
    format!("p50 {} us, p99 {} us, p99.9 {} us, max {} us", us(0.5), us(0.99), us(0.999), us(1.0))
}
