//! The seeds that a change must pass, one seed in two processes, and what the simulation finds when what it relies on does not
//! hold.
#![allow(clippy::disallowed_methods, reason = "starts the binary")]

use std::process::Command;

use thalweg_sim::{Plant, Report, shard, whole};

#[test]
fn two_hundred_seeds_of_a_shard_keep_every_invariant() {
    let mut failures = Vec::new();
    let (mut at_once, mut late, mut gets, mut starts) = (0, 0, 0, 0);
    for seed in 1..=200 {
        match shard::run(seed, Plant::Nothing, false) {
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
fn fifty_seeds_of_the_whole_broker_keep_every_invariant() {
    let mut failures = Vec::new();
    let mut reports: Vec<Report> = Vec::new();
    for seed in 1..=50 {
        match whole::run(seed, Plant::Nothing, false) {
            Ok(report) => reports.push(report),
            Err(violation) => failures.push(format!("seed {seed}: {}", violation.0)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let sum = |figure: fn(&Report) -> u64| reports.iter().map(figure).sum::<u64>();
    let (starts, acknowledged, read) = (sum(|r| r.starts.into()), sum(|r| r.acknowledged), sum(|r| r.read));
    let (commits, deleted, gets) = (sum(|r| r.offset_commits), sum(|r| r.topics_deleted), sum(|r| r.store_gets));
    // What does not happen is not tested.
    assert!(starts > 300 && acknowledged > 10_000 && read > 20_000, "{starts} {acknowledged} {read}");
    assert!(commits > 300 && deleted > 50 && gets > 5_000, "{commits} {deleted} {gets}");
    let (refusals, rebuilt, removed) = (sum(|r| r.refusals), sum(|r| r.rebuilt.into()), sum(|r| r.store_deletes));
    assert!(refusals > 2 && rebuilt > 10 && removed > 300, "{refusals} {rebuilt} {removed}");
    let (alterations, sessions, look_ups) = (sum(|r| r.alterations), sum(|r| r.session_fetches), sum(|r| r.look_ups));
    assert!(alterations > 60 && sessions > 500 && look_ups > 60, "{alterations} {sessions} {look_ups}");
    let [minor, major, split, dropped] = ["minor", "major", "split", "dropped"]
        .map(|kind| reports.iter().filter_map(|r| r.compacted.get(kind)).sum::<u64>());
    assert!(minor > 100 && split > 10 && dropped > 5, "{minor} {major} {split} {dropped}");
    let [folded, released, unfolded] = [0, 1, 2].map(|at: usize| reports.iter().map(|r| r.manifests[at]).sum::<u64>());
    assert!(folded > 500 && released > 100 && unfolded > 5, "{folded} {released} {unfolded}");
    let (cleaned, thinned, passes) = (sum(|r| r.cleaned), sum(|r| r.thinned), sum(|r| r.passes));
    assert!(cleaned > 200 && thinned > 1_000 && passes > 200, "{cleaned} {thinned} {passes}");
    assert!(sum(|r| r.figures) > 10_000, "{}", sum(|r| r.figures));
}

#[test]
fn one_seed_is_one_history_in_two_processes() {
    let report = |what: &str, seed: &str| {
        let sim = Command::new(env!("CARGO_BIN_EXE_thalweg-sim")).args(["--what", what, "--seed", seed]).output();
        let output = sim.expect("it runs");
        assert!(output.status.success(), "seed {seed}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    for what in ["whole", "shard"] {
        for seed in ["3", "17"] {
            assert_eq!(report(what, seed), report(what, seed));
        }
        assert_ne!(report(what, "3").split_once(": "), report(what, "17").split_once(": "));
    }
}

/// The first of `seeds` seeds of a shard that fails.
fn found(plant: Plant, seeds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| shard::run(seed, plant, false).err().map(|violation| (seed, violation.0)))
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
