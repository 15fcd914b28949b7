//! `thalweg-perf`: the command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use thalweg_perf::{compare, flood, load, skew, wal};

/// Measures Thalweg beside Apache Kafka, its write-ahead log beside fio, and any broker under one load.
#[derive(Parser, Debug)]
#[command(name = "thalweg-perf", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Starts Thalweg and Apache Kafka, with fsync and without, and measures them side by side.
    Compare(compare::Options),
    /// Floods Thalweg and Apache Kafka with readers of gigabytes that are cold, and measures what writes feel of it.
    Flood(Box<flood::Options>),
    /// Draws the pictures of a report again, and prints its table.
    Draw {
        /// The report.json of a comparison or a flood.
        report: PathBuf,
        /// Where the pictures go.
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
    /// Produces to a running broker as fast as it acknowledges.
    Produce(load::Produce),
    /// Reads a topic of a running broker from the start to its end.
    Consume(load::Consume),
    /// Produces to a running broker on a schedule, and says how long records took.
    Latency(load::Latency),
    /// Sends to partitions that all lie on one shard of a running Thalweg, and shows how fast it evens that.
    Skew(skew::Options),
    /// Measures the write-ahead log and its device beside fio.
    Wal(wal::Options),
}

fn redraw(report: &Path, out: &Path) -> Result<(), String> {
    match flood::redraw(report, out)? {
        Some(()) => Ok(()),
        None => compare::redraw(report, out),
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Flood(options) => flood::run(&options),
        Command::Draw { report, out } => redraw(&report, &out),
        Command::Produce(options) => load::produce(&options),
        Command::Consume(options) => load::consume(&options),
        Command::Latency(options) => load::latency(&options),
        Command::Skew(options) => skew::run(&options),
        Command::Wal(options) => wal::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
