//! `thalweg-perf`: a load generator that costs little CPU, for any Kafka broker.
//!
//! Every batch is encoded once and sent again and again, so that on a small machine the broker, not the load, is what is
//! measured. Runs on plain threads, one per connection. `perf/compare` beside it measures with librdkafka instead.

#![allow(clippy::disallowed_methods, reason = "a load generator lives on clocks and threads")]

mod load;
mod wire;

use std::{process::ExitCode, thread, time::Instant};

use clap::Parser;

use load::{Connection, Outcome};

/// Produces to a broker as fast as it acknowledges, and says how fast that was.
#[derive(Parser, Debug)]
#[command(name = "thalweg-perf", version)]
struct Args {
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
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Records in one batch.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_records: u32,
    /// Bytes in the value of one record.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    record_bytes: u32,
    /// MiB of batches to send, over all connections.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    mebibytes: u64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let batch = wire::batch(args.batch_records, args.record_bytes)?;
    let frames = wire::produce_frames(&args.topic, args.partitions, &batch)?;
    let mut first = Connection::open(&args.bootstrap)?;
    first.create_topic(&args.topic, args.partitions)?;
    first.wait_until_open(&frames)?;
    let requests = ((args.mebibytes << 20) / (batch.len() as u64 * u64::from(args.connections))).max(1);
    let began = Instant::now();
    let outcomes: Result<Vec<Outcome>, String> = thread::scope(|threads| {
        let started: Vec<_> = (0..args.connections)
            .map(|_| {
                threads.spawn(|| {
                    Connection::open(&args.bootstrap)?.produce(&frames, requests, usize::from(args.in_flight))
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().expect("the load does not panic")).collect()
    });
    report(args, batch.len() as u64, began.elapsed().as_secs_f64(), outcomes?);
    Ok(())
}

fn report(args: &Args, batch_bytes: u64, seconds: f64, outcomes: Vec<Outcome>) {
    let mut latencies: Vec<u64> = outcomes.into_iter().flat_map(|outcome| outcome.latencies_us).collect();
    latencies.sort_unstable();
    let requests = latencies.len() as u64;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{:.0} MB/s, {:.0} records/s, {requests} requests of {batch_bytes} bytes; request latency in us: p50 {}, p99 {}, max {}",
        (requests * batch_bytes) as f64 / 1e6 / seconds,
        (requests * u64::from(args.batch_records)) as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
    );
}
