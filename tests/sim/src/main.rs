//! Runs seeds of the simulation: `thalweg-sim --seeds 200`, or one of them step by step: `--seed 7 --trace`.

#![expect(clippy::disallowed_methods, reason = "reads the list of seeds before anything is simulated")]

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use thalweg_sim::{Plant, Violation, shard, whole};

/// Crashes the broker on virtual time, and checks that nothing is lost.
#[derive(Parser)]
#[command(name = "thalweg-sim")]
struct Args {
    /// What is simulated.
    #[arg(long, value_enum, default_value_t)]
    what: What,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run the seeds of this file instead, one a line: `whole 7` or `shard 7`; what follows is a remark.
    #[arg(long)]
    kept: Option<PathBuf>,
    /// Say on stderr what happens.
    #[arg(long)]
    trace: bool,
    /// Take a protection out, to see the simulation fail.
    #[arg(long, value_enum, default_value_t)]
    plant: Plant,
    /// End at the first seed that fails.
    #[arg(long)]
    first: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum What {
    /// What the binary starts, over the wire.
    #[default]
    Whole,
    /// One shard alone, by messages.
    Shard,
}

fn run(args: &Args, what: What, seed: u64) -> Result<String, Violation> {
    match what {
        What::Whole => whole::run(seed, args.plant, args.trace).map(|report| format!("{report:?}")),
        What::Shard => shard::run(seed, args.plant, args.trace).map(|report| format!("{report:?}")),
    }
}

/// What is to be run.
fn histories(args: &Args) -> Result<Vec<(What, u64)>, String> {
    let Some(path) = &args.kept else {
        return Ok((args.seed..args.seed + args.seeds).map(|seed| (args.what, seed)).collect());
    };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| history(line).ok_or_else(|| format!("{}: {line:?} is no history", path.display()))).collect()
}

fn history(line: &str) -> Option<(What, u64)> {
    let mut words = line.split_whitespace();
    Some((What::from_str(words.next()?, false).ok()?, words.next()?.parse().ok()?))
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.trace {
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    }
    let histories = match histories(&args) {
        Ok(histories) => histories,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let watched = histories.len() > 1 && std::io::stderr().is_terminal();
    let (mut passed, mut failed) = (0, 0);
    for (what, seed) in &histories {
        if watched {
            eprint!("\r{passed} passed, {failed} failed of {}; seed {seed} ", histories.len());
            let _unseen = std::io::stderr().flush();
        }
        match run(&args, *what, *seed) {
            Ok(report) => {
                passed += 1;
                if histories.len() == 1 {
                    println!("seed {seed}: {report}");
                }
            }
            Err(violation) => {
                failed += 1;
                println!("{what:?} seed {seed}: {}", violation.0);
                if args.first {
                    break;
                }
            }
        }
    }
    if watched {
        eprintln!();
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
