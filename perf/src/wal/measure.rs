//! `wal`: the write-ahead log and its device beside fio, with the same pattern on the same file.
//!
//! Each pattern is measured three ways, one after the other: the device port alone, the log on it, and fio. All write the
//! same file, which has been written once before, so that nobody pays for fresh extents.

use std::{fs, io::ErrorKind, path::PathBuf, time::Duration};

use clap::Args;
use serde::Serialize;
use thalweg_wal::device::WalSync;

use super::{fio, ours};
use crate::{broker, figures::Latency, machine::Machine, report::table::number};

/// Options of `wal`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A directory on the disk to measure.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// How long each pattern is measured, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// A quarter of a second each, to see that everything works; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// MiB of the file that is written round and round.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..))]
    mebibytes: u64,
    /// A file for all figures, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How writes are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Pattern {
    /// `dsync` or `fdatasync`, as `wal.sync`.
    pub(super) sync: &'static str,
    /// Bytes of a write.
    pub(super) group_bytes: u32,
    /// Writes under way at once.
    pub(super) in_flight: usize,
    /// Rest after each write, in milliseconds: a file system has more to do for a write that comes alone (the file's time of change,
    /// for one), and a device that sleeps answers later.
    pub(super) pause_ms: u64,
}

const GROUPS: [u32; 3] = [4 << 10, 64 << 10, 1 << 20];

impl Pattern {
    fn all() -> Vec<Pattern> {
        let mut all = Vec::new();
        for sync in ["dsync", "fdatasync"] {
            for group_bytes in GROUPS {
                all.extend([1, 2].map(|in_flight| Pattern { sync, group_bytes, in_flight, pause_ms: 0 }));
            }
            all.push(Pattern { sync, group_bytes: GROUPS[0], in_flight: 1, pause_ms: 10 });
        }
        all
    }

    fn name(self) -> String {
        let pace = if self.pause_ms > 0 {
            format!("{} ms between", self.pause_ms)
        } else {
            format!("{} in flight", self.in_flight)
        };
        format!("{}, {} KiB, {pace}", self.sync, self.group_bytes >> 10)
    }

    pub(super) fn wal_sync(self) -> WalSync {
        if self.sync == "dsync" { WalSync::Dsync } else { WalSync::Fdatasync }
    }
}

/// What one way of writing reached.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Written {
    pub(super) seconds: f64,
    pub(super) bytes: u64,
    /// From the start of a write to its being durable. fio times a write and its fdatasync apart: then it is the write
    /// alone, and `sync_latency` the fdatasync.
    pub(super) latency: Latency,
    pub(super) sync_latency: Option<Latency>,
}

impl Written {
    fn megabytes_per_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// A quantile in microseconds; with fio's fdatasync an estimate, the sum of both quantiles.
    pub(super) fn us(&self, q: f64) -> f64 {
        (self.latency.quantile_us(q) + self.sync_latency.as_ref().map_or(0, |sync| sync.quantile_us(q))) as f64
    }
}

/// One pattern, three ways.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Row {
    pattern: Pattern,
    device: Written,
    log: Written,
    fio: Written,
}

#[derive(Serialize)]
struct Figures {
    machine: Machine,
    quick: bool,
    rows: Vec<Row>,
}

/// Measures every pattern and prints the table.
///
/// # Errors
/// When the file cannot be made, or fio not be run.
pub fn run(options: &Options) -> Result<(), String> {
    broker::install(&["fio"])?;
    let time = Duration::from_secs_f64(if options.quick { 0.25 } else { options.seconds });
    let bytes = options.mebibytes << 20;
    let file = File(options.directory.join(format!("thalweg-perf-wal-{}", std::process::id())));
    ours::lay_out(&file.0, bytes)?;
    let mut rows = Vec::new();
    println!("{}", Machine::look(&options.directory).line());
    println!("{}", header());
    for pattern in Pattern::all() {
        let device = ours::device(&file.0, pattern, time)?;
        let log = ours::log(&file.0, pattern, time)?;
        let fio = fio::measure(&file.0, bytes, pattern, time)?;
        let row = Row { pattern, device, log, fio };
        println!("{}", line(&row));
        rows.push(row);
    }
    println!("p50 and p99 in us; x fio: the log's figure over fio's; fio's fdatasync rows add up two quantiles");
    if let Some(path) = &options.json {
        let figures = Figures { machine: Machine::look(&options.directory), quick: options.quick, rows };
        let text = serde_json::to_string_pretty(&figures).map_err(|e| e.to_string())?;
        fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}

/// The file under measurement, removed at the end.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(why) if why.kind() != ErrorKind::NotFound => eprintln!("{} is left over: {why}", self.0.display()),
            _ => {}
        }
    }
}

fn header() -> String {
    format!(
        "{:28}{:>27}{:>27}{:>27}{:>10}{:>10}",
        "", "device MB/s  p50  p99", "log MB/s  p50  p99", "fio MB/s  p50  p99", "x fio", "p99 x fio"
    )
}

fn line(row: &Row) -> String {
    let three = |written: &Written| {
        format!("{:>13}{:>7.0}{:>7.0}", number(written.megabytes_per_s()), written.us(0.5), written.us(0.99))
    };
    format!(
        "{:28}{}{}{}{:>10}{:>10}",
        row.pattern.name(),
        three(&row.device),
        three(&row.log),
        three(&row.fio),
        number(row.log.megabytes_per_s() / row.fio.megabytes_per_s()),
        number(row.log.us(0.99) / row.fio.us(0.99).max(1.0)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_there_once() {
        let all = Pattern::all();
        assert_eq!(all.len(), 14);
        assert!(all.iter().all(|one| all.iter().filter(|other| *other == one).count() == 1));
    }

    #[test]
    fn a_line_has_the_ratios() {
        let written = |bytes, us| Written {
            seconds: 1.0,
            bytes,
            latency: Latency::from_counts(vec![(us, 10)]),
            sync_latency: None,
        };
        let pattern = Pattern { sync: "dsync", group_bytes: 4096, in_flight: 1, pause_ms: 0 };
        let row = Row {
            pattern,
            device: written(50_000_000, 90),
            log: written(40_000_000, 150),
            fio: written(50_000_000, 100),
        };
        let line = line(&row);
        assert!(line.ends_with("     0.800      1.50"), "{line}");
    }
}
