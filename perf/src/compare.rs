//! The whole comparison: every scenario on every rival, in rounds, so that what changes on the machine meanwhile meets all
//! of them alike.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    broker::{self, Broker, Brokers},
    figures::{Rival, Run, Start},
    machine::Machine,
    report::{self, Report, RivalNote, json, table},
    scenario::{Bench, Plan, Scenario},
};

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Every scenario for a second or so, to see that everything works; the figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Only these scenarios: produce, tail, fanout, catchup, latency, small, librdkafka.
    #[arg(long, value_delimiter = ',', value_parser = Scenario::named)]
    only: Vec<Scenario>,
    /// Only these brokers: thalweg, thalweg-before (which wants --before), kafka, kafka-flush.
    #[arg(long, value_delimiter = ',', value_parser = rival)]
    brokers: Vec<Rival>,
    /// GiB of values that a load sends which goes as fast as it can.
    #[arg(long, default_value_t = 2.0)]
    gigabytes: f64,
    /// How often all is repeated; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Connections of the load.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Where report.json, table.txt and the pictures go (default: perf/report in the target directory).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where the brokers keep their data meanwhile; a real disk (default: perf/data in the target directory).
    #[arg(long)]
    data: Option<PathBuf>,
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

pub(crate) fn rival(name: &str) -> Result<Rival, String> {
    let found = Rival::ALL.into_iter().find(|rival| rival.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = Rival::ALL.iter().map(|rival| rival.name()).collect();
        format!("there is no broker '{name}', but {}", names.join(", "))
    })
}

/// Runs the comparison and writes the report.
///
/// # Errors
/// When something cannot be prepared, or a run failed; what was measured is written all the same.
pub fn run(options: &Options) -> Result<(), String> {
    let out = options.out.clone().unwrap_or_else(|| target("report"));
    let data = options.data.clone().unwrap_or_else(|| target("data"));
    for directory in [&out, &data] {
        fs::create_dir_all(directory).map_err(|e| format!("cannot create {}: {e}", directory.display()))?;
    }
    let mut comparison = Comparison::prepare(options, &data)?;
    comparison.measure(options.quick);
    let report = comparison.report(options, &data);
    write(&report, &out)?;
    let failed = report.runs.iter().filter(|run| run.figures.is_none()).count();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} runs failed", report.runs.len())) }
}

/// Draws the pictures of a report again, and prints its table.
///
/// # Errors
/// When the report cannot be read, or the pictures not be written.
pub fn redraw(report: &Path, out: &Path) -> Result<(), String> {
    fs::create_dir_all(out).map_err(|e| format!("cannot create {}: {e}", out.display()))?;
    let report: Report = json::read(report)?;
    println!("{}", table::render(&report));
    report::draw(&report, out).map(|_| ())
}

fn write(report: &Report, out: &Path) -> Result<(), String> {
    let table = table::render(report);
    println!("{table}");
    let path = out.join("table.txt");
    fs::write(&path, table + "\n").map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    json::write(report, &out.join("report.json"))?;
    let pictures = report::draw(report, out)?;
    println!("\nin {}: report.json, table.txt, and as .png and .svg: {}", out.display(), pictures.join(", "));
    Ok(())
}

/// A directory below the target directory that this program was built into.
pub(crate) fn target(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).unwrap_or(Path::new(".")).join("perf").join(name)
}

struct Comparison {
    brokers: Brokers,
    rivals: Vec<Rival>,
    scenarios: Vec<Scenario>,
    plan: Plan,
    rounds: u32,
    starts: Vec<Start>,
    runs: Vec<Run>,
}

impl Comparison {
    fn prepare(options: &Options, data: &Path) -> Result<Comparison, String> {
        let rivals = rivals(options);
        let scenarios = if options.only.is_empty() { Scenario::ALL.to_vec() } else { options.only.clone() };
        if scenarios.contains(&Scenario::Librdkafka) {
            broker::install(&["python"])?;
        }
        let mut thalweg = options.thalweg_set.clone();
        if options.quick {
            // Writing zeros ahead into a large log would take longer than everything else.
            thalweg.insert(0, format!("wal.capacity.bytes={}", 512 << 20));
        }
        let plan =
            if options.quick { Plan::quick() } else { Plan::full((options.gigabytes * (1_u64 << 30) as f64) as u64) };
        Ok(Comparison {
            brokers: Brokers::prepare(data, &rivals, options.before.as_deref(), thalweg, options.kafka_set.clone())?,
            rivals,
            scenarios,
            plan: Plan { connections: options.connections, ..plan },
            rounds: if options.quick { 1 } else { options.runs },
            starts: Vec::new(),
            runs: Vec::new(),
        })
    }

    /// Each scenario has fresh brokers, but in a quick run, where starting them would take most of the time.
    fn measure(&mut self, quick: bool) {
        let at_once = if quick { self.scenarios.len() } else { 1 };
        let groups: Vec<Vec<Scenario>> = self.scenarios.chunks(at_once).map(<[Scenario]>::to_vec).collect();
        for round in 1..=self.rounds {
            for (at, group) in groups.iter().enumerate() {
                for rival in rotated(&self.rivals, turn(round, at)) {
                    let started = self.brokers.start(rival);
                    let done = started.and_then(|mut broker| self.measure_one(&mut broker, round, group));
                    if let Err(why) = done {
                        self.record_failure(rival, round, group, &why);
                    }
                }
            }
        }
    }

    /// A broker that does not even start fails all that it should have been measured in.
    fn record_failure(&mut self, rival: Rival, round: u32, scenarios: &[Scenario], why: &str) {
        for scenario in scenarios {
            let (scenario, cell) = (scenario.name().to_owned(), "start and warm-up".to_owned());
            let run = Run { scenario, cell, rival, round, figures: None, failure: Some(why.to_owned()) };
            eprintln!("{}", report::progress(&run));
            self.runs.push(run);
        }
    }

    fn measure_one(&mut self, broker: &mut Broker, round: u32, scenarios: &[Scenario]) -> Result<(), String> {
        let idle = broker.settle(self.plan.rest)?;
        self.starts.push(Start {
            rival: broker.rival,
            round,
            ready_ms: broker.ready.as_secs_f64() * 1000.0,
            idle_resident_bytes: idle.resident_bytes,
        });
        let mut bench = Bench { plan: self.plan, broker, round, runs: &mut self.runs, topics: 0 };
        bench.warm_up()?;
        scenarios.iter().for_each(|scenario| scenario.run(&mut bench));
        Ok(())
    }

    fn report(self, options: &Options, data: &Path) -> Report {
        let note = |rival: &Rival| RivalNote {
            rival: *rival,
            durability: rival.durability().to_owned(),
            settings: self.brokers.settings(*rival),
        };
        let plan = self.plan;
        let load = format!(
            "load: {} connections, closed loads {} requests in flight on each, {:.2} GiB or {} s; open loads {} s, linger 1 ms, \
             5 requests in flight; {} round(s); MB and GiB are of values",
            plan.connections,
            plan.in_flight,
            plan.bytes as f64 / crate::figures::GIB,
            plan.at_most.as_secs(),
            plan.paced_s,
            self.rounds,
        );
        Report {
            format: 1,
            quick: options.quick,
            machine: Machine::look(data),
            versions: self.brokers.versions(),
            rivals: self.rivals.iter().map(note).collect(),
            load: vec![load],
            starts: self.starts,
            runs: self.runs,
        }
    }
}

/// Those that are asked for, and the earlier build when there is one.
fn rivals(options: &Options) -> Vec<Rival> {
    let mut rivals = if options.brokers.is_empty() { Rival::USUAL.to_vec() } else { options.brokers.clone() };
    if options.before.is_some() && !rivals.contains(&Rival::ThalwegBefore) {
        rivals.push(Rival::ThalwegBefore);
    }
    rivals
}

/// Whose turn it is to be first: another one's in each round of the same scenario, however many scenarios and rivals there are.
fn turn(round: u32, scenario: usize) -> usize {
    round as usize + scenario
}

/// All of them, beginning with another one each turn.
pub(crate) fn rotated(rivals: &[Rival], turn: usize) -> Vec<Rival> {
    let from = turn % rivals.len().max(1);
    rivals[from..].iter().chain(&rivals[..from]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_in_turn() {
        let firsts: Vec<Rival> = (0..4).map(|turn| rotated(&Rival::ALL, turn)[0]).collect();
        assert_eq!(firsts, Rival::ALL);
        assert_eq!(rotated(&Rival::ALL, 5).len(), 4);
    }

    #[test]
    fn of_two_each_is_first_in_every_other_round_of_every_scenario() {
        let two = [Rival::Thalweg, Rival::ThalwegBefore];
        for scenario in 0..3 {
            let firsts: Vec<Rival> = (1..=4).map(|round| rotated(&two, turn(round, scenario))[0]).collect();
            assert_eq!(firsts[..2], firsts[2..]);
            assert_ne!(firsts[0], firsts[1]);
        }
    }
}
