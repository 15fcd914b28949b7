//! Runs seeds of the simulation: `thalweg-sim --seeds 200`, or one of them step by step: `--seed 7 --trace`.

use std::process::ExitCode;

use clap::Parser;
use thalweg_sim::{Plant, run};

/// Crashes the production shard, WAL, uploader and cold reader on virtual time, and checks that nothing is lost.
#[derive(Parser)]
#[command(name = "thalweg-sim")]
struct Args {
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

fn main() -> ExitCode {
    let args = Args::parse();
    let (mut passed, mut failed) = (0, 0);
    for seed in args.seed..args.seed + args.seeds {
        match run(seed, args.plant, args.trace) {
            Ok(report) => {
                passed += 1;
                if args.seeds == 1 {
                    println!("seed {seed}: {report:?}");
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
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
