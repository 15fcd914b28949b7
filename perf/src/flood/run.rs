//! The command: on every broker in turn, with an object store of its own where it has one, and the report of all.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{
    course::Course,
    outcome::{FloodReport, FloodRun, Outcome},
    table,
};
use crate::{
    broker::{Beside, Brokers},
    compare::{rival, rotated, target},
    figures::{GIB, Rival},
    machine::Machine,
    report::{self, RivalNote},
    scenario::Plan,
    store::Store,
};

/// Options of `flood`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Little of everything, to see that it works; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Only these brokers: thalweg, thalweg-before (which wants --before), kafka, kafka-flush. Default: thalweg, kafka.
    #[arg(long, value_delimiter = ',', value_parser = rival)]
    brokers: Vec<Rival>,
    /// GiB of values that lie in the object store before the flood, and that its readers replay.
    #[arg(long, default_value_t = 4.0)]
    gigabytes: f64,
    /// Readers of the flood, each of them reads everything.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    readers: u16,
    /// Readers of the flood share the partitions, as the members of a group would, and read everything once together.
    #[arg(long)]
    share: bool,
    /// CPU, in cores, that the readers of the flood take at most together.
    #[arg(long, default_value_t = 0.5)]
    reader_cores: f64,
    /// The load at the tail, in MB of values per second, of every broker. Default: half of what each one can take for long.
    #[arg(long)]
    megabytes_per_s: Option<f64>,
    /// Consumers that follow the tail and share its partitions.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    followers: u16,
    /// Seconds of the load before the flood.
    #[arg(long, default_value_t = 30.0)]
    before_s: f64,
    /// Seconds that the flood lasts at most; it ends sooner when its readers have read everything.
    #[arg(long, default_value_t = 60.0)]
    flood_s: f64,
    /// Seconds of the load after the longest flood.
    #[arg(long, default_value_t = 10.0)]
    after_s: f64,
    /// What passes between a request to the object store and the first byte of its answer, in milliseconds.
    #[arg(long, default_value_t = 30)]
    first_byte_ms: u64,
    /// How often all is repeated; the table shows medians, the picture the last round.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Connections of the load at the tail.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Where report.json, table.txt and the picture go (default: perf/flood in the target directory).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where brokers and object store keep their data meanwhile; a real disk (default: perf/data in the target directory).
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where the object store keeps its objects: on another disk than the brokers, or on a tmpfs with room for all of them, so that the disk of
    /// the log is not the store's too (default: beside the brokers).
    #[arg(long)]
    store_data: Option<PathBuf>,
    /// The binary of an earlier build, which is measured beside all others.
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// A setting of Thalweg, of both its builds, KEY=VALUE.
    #[arg(long = "thalweg-set", value_name = "KEY=VALUE")]
    thalweg_set: Vec<String>,
    /// A setting of both Kafkas, KEY=VALUE.
    #[arg(long = "kafka-set", value_name = "KEY=VALUE")]
    kafka_set: Vec<String>,
}

/// What a warm-up sends at most.
const WARM_UP_BYTES: u64 = 2 << 30;

/// How one course goes, the same for every broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) plan: Plan,
    pub(super) history_bytes: u64,
    pub(super) readers: u16,
    pub(super) share: bool,
    pub(super) reader_cores: f64,
    pub(super) megabytes_per_s: Option<f64>,
    pub(super) followers: u16,
    pub(super) before_s: f64,
    pub(super) flood_s: f64,
    pub(super) after_s: f64,
    pub(super) first_byte: Duration,
    /// How long the broker's maximum is measured.
    pub(super) maximum: Duration,
}

impl Terms {
    fn of(options: &Options) -> Result<Terms, String> {
        for (name, value) in [
            ("--gigabytes", options.gigabytes),
            ("--reader-cores", options.reader_cores),
            ("--megabytes-per-s", options.megabytes_per_s.unwrap_or(1.0)),
            ("--before-s", options.before_s),
            ("--flood-s", options.flood_s),
            ("--after-s", options.after_s),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{name} must be more than 0"));
            }
        }
        let terms = Terms {
            plan: Plan { connections: options.connections, ..Plan::full(WARM_UP_BYTES) },
            history_bytes: (options.gigabytes * GIB) as u64,
            readers: options.readers,
            share: options.share,
            reader_cores: options.reader_cores,
            megabytes_per_s: options.megabytes_per_s,
            followers: options.followers,
            before_s: options.before_s,
            flood_s: options.flood_s,
            after_s: options.after_s,
            first_byte: Duration::from_millis(options.first_byte_ms),
            maximum: Duration::from_secs(10),
        };
        if !options.quick {
            return Ok(terms);
        }
        Ok(Terms {
            plan: Plan { connections: options.connections, ..Plan::quick() },
            history_bytes: 48 << 20,
            before_s: 3.0,
            flood_s: 4.0,
            after_s: 1.0,
            maximum: Duration::from_secs(1),
            ..terms
        })
    }

    fn lines(&self) -> Vec<String> {
        let rate = self
            .megabytes_per_s
            .map_or("half of what the broker can take for long".to_owned(), |mb| format!("{mb} MB/s"));
        let each = if self.share { "sharing the partitions" } else { "each reading everything" };
        vec![
            format!(
                "load: {} connections, {rate}, {} followers, linger 1 ms, 16 partitions, 1 KiB records; {} s, then the flood of \
                 at most {} s, then {} s",
                self.plan.connections, self.followers, self.before_s, self.flood_s, self.after_s,
            ),
            format!(
                "flood: {} readers, {each}, of {:.2} GiB; their CPU: {} cores together at most, nice 10",
                self.readers,
                self.history_bytes as f64 / GIB,
                self.reader_cores,
            ),
            format!(
                "Thalweg's objects: s3s-fs on loopback, {} ms to the first byte; Kafka's log: page cache dropped by \
                 posix_fadvise(DONTNEED) before the load",
                self.first_byte.as_millis(),
            ),
        ]
    }
}

/// Runs it on every broker and writes the report.
///
/// # Errors
/// When something cannot be prepared, or a run failed; what was measured is written all the same.
pub fn run(options: &Options) -> Result<(), String> {
    let terms = Terms::of(options)?;
    let out = options.out.clone().unwrap_or_else(|| target("flood"));
    let data = options.data.clone().unwrap_or_else(|| target("data"));
    for directory in [&out, &data].into_iter().chain(&options.store_data) {
        fs::create_dir_all(directory).map_err(|e| format!("cannot create {}: {e}", directory.display()))?;
    }
    let rivals = rivals(options);
    let mut thalweg = Vec::new();
    if options.quick {
        // Writing zeros ahead into a large log would take longer than everything else, and so would waiting for an upload.
        thalweg = vec![format!("wal.capacity.bytes={}", 512 << 20), "object.upload.interval.ms=500".to_owned()];
    }
    thalweg.extend(options.thalweg_set.iter().cloned());
    let mut brokers = Brokers::prepare(&data, &rivals, options.before.as_deref(), thalweg, options.kafka_set.clone())?;
    let mut runs = Vec::new();
    for round in 1..=options.runs {
        for rival in rotated(&rivals, round as usize - 1) {
            let (outcome, failure) = match measure(&mut brokers, rival, &terms, options.store_data.as_deref()) {
                Ok(outcome) => (Some(outcome), None),
                Err(why) => (None, Some(why)),
            };
            let run = FloodRun { rival, round, outcome, failure };
            eprintln!("{}", table::progress(&run));
            runs.push(run);
        }
    }
    let mut load = terms.lines();
    if let Some(store_data) = &options.store_data {
        let disk = Machine::look(store_data).disk;
        load.push(format!("the object store's files: {} {}", disk.file_system, disk.device));
    }
    let note = |rival: &Rival| {
        let (durability, settings) = (rival.durability().to_owned(), brokers.settings(*rival));
        RivalNote { rival: *rival, durability, settings }
    };
    let report = FloodReport {
        format: 1,
        flood: true,
        quick: options.quick,
        machine: Machine::look(&data),
        versions: brokers.versions(),
        rivals: rivals.iter().map(note).collect(),
        load,
        runs,
    };
    write(&report, &out)?;
    let failed = report.runs.iter().filter(|run| run.outcome.is_none()).count();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} runs failed", report.runs.len())) }
}

/// Draws the picture of a report again and prints its table; `None` when the file is a report of something else.
///
/// # Errors
/// When the picture cannot be written.
pub fn redraw(report: &Path, out: &Path) -> Result<Option<()>, String> {
    let Ok(report) = report::json::read::<FloodReport>(report) else { return Ok(None) };
    fs::create_dir_all(out).map_err(|e| format!("cannot create {}: {e}", out.display()))?;
    println!("{}", table::render(&report));
    report::draw_flood(&report, out).map(|_| Some(()))
}

fn write(report: &FloodReport, out: &Path) -> Result<(), String> {
    let table = table::render(report);
    println!("{table}");
    let path = out.join("table.txt");
    fs::write(&path, table + "\n").map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    report::json::write(report, &out.join("report.json"))?;
    let pictures = report::draw_flood(report, out)?;
    println!("\nin {}: report.json, table.txt, and as .png and .svg: {}", out.display(), pictures.join(", "));
    Ok(())
}

/// One broker from its start to its end, with an object store of its own where it has one.
fn measure(brokers: &mut Brokers, rival: Rival, terms: &Terms, store_data: Option<&Path>) -> Result<Outcome, String> {
    let store = if rival.is_thalweg() {
        let beside = store_data.unwrap_or(brokers.directory());
        Some(Store::start(beside.join("object-store"), terms.first_byte)?)
    } else {
        None
    };
    let beside = store.as_ref().map_or_else(Beside::default, Store::beside);
    let mut broker = brokers.start_with(rival, &beside)?;
    let outcome = Course { terms, broker: &mut broker }.run();
    // In this order: a broker must not see its store go.
    drop(broker);
    drop(store);
    outcome
}

/// Those that are asked for, and the earlier build when there is one.
fn rivals(options: &Options) -> Vec<Rival> {
    let usual = vec![Rival::Thalweg, Rival::Kafka];
    let mut rivals = if options.brokers.is_empty() { usual } else { options.brokers.clone() };
    if options.before.is_some() && !rivals.contains(&Rival::ThalwegBefore) {
        rivals.push(Rival::ThalwegBefore);
    }
    rivals
}
