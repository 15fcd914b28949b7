//! The seeds that a change must pass, one seed in two processes, and what the simulation finds when a protection is out.
#![allow(clippy::disallowed_methods, reason = "starts the binary")]

use std::process::Command;

use thalweg_sim::{Plant, shard::run};

#[test]
fn two_hundred_seeds_keep_every_invariant() {
    let mut failures = Vec::new();
    let (mut at_once, mut late, mut gets, mut starts) = (0, 0, 0, 0);
    for seed in 1..=200 {
        match run(seed, Plant::Nothing, false) {
            Ok(report) => {
                at_once += report.reads_at_once;
                late += report.reads_late;
                gets += report.store_gets;
                starts += report.starts;
            }
            Err(violation) => failures.push(format!("seed {seed}: {}", violation.0)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // A simulation that crashes nothing, or reads from one place only, proves nothing.
    assert!(starts > 1_000 && at_once > 1_000 && late > 10_000 && gets > 10_000, "{starts} {at_once} {late} {gets}");
}

#[test]
fn one_seed_is_one_history_in_two_processes() {
    let report = |seed: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg-sim")).args(["--seed", seed]).output().expect("it runs");
        assert!(output.status.success(), "seed {seed}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    for seed in ["3", "17"] {
        assert_eq!(report(seed), report(seed));
    }
    assert_ne!(report("3").split_once(": "), report("17").split_once(": "));
}

/// The first of `seeds` seeds that fails.
fn found(plant: Plant, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| run(seed, plant, false).err().map(|violation| (seed, violation.0)))
}

#[test]
fn a_disk_that_says_ok_too_early_is_found() {
    let (seed, why) = found(Plant::EarlyOk, 20).expect("found within 20 seeds");
    println!("seed {seed}: {why}");
}

#[test]
fn metadata_that_says_durable_too_early_is_found() {
    let (seed, why) = found(Plant::EarlySync, 20).expect("found within 20 seeds");
    println!("seed {seed}: {why}");
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_log_without_incarnation_and_chain_is_found() {
    let (seed, why) = found(Plant::NoIncarnationNoChain, 300).expect("found within 300 seeds");
    println!("seed {seed}: {why}");
}
