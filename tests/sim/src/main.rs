//! Runs seeds of the simulation: `thalweg-sim --seeds 200`, or one of them step by step: `--seed 7 --trace`.

use std::{
    io::{IsTerminal, Write},
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

fn run(args: &Args, seed: u64) -> Result<String, Violation> {
    match args.what {
        What::Whole => whole::run(seed, args.plant, args.trace).map(|report| format!("{report:?}")),
        What::Shard => shard::run(seed, args.plant, args.trace).map(|report| format!("{report:?}")),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.trace {
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    }
    let watched = args.seeds > 1 && std::io::stderr().is_terminal();
    let (mut passed, mut failed) = (0, 0);
    for seed in args.seed..args.seed + args.seeds {
        if watched {
            eprint!("\r{passed} passed, {failed} failed of {}; seed {seed} ", args.seeds);
            let _unseen = std::io::stderr().flush();
        }
        match run(&args, seed) {
            Ok(report) => {
                passed += 1;
                if args.seeds == 1 {
                    println!("seed {seed}: {report}");
                }
            }
            Err(violation) => {
                failed += 1;
                println!("seed {seed}: {}", violation.0);
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
