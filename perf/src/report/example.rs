//! A report of made-up figures, for tests.

use super::{Report, RivalNote};
use crate::figures::{Cost, Figures, Latency, Rival, Run, Start};

fn slowness(rival: Rival) -> f64 {
    match rival {
        Rival::Thalweg => 1.0,
        Rival::ThalwegBefore => 2.0,
        Rival::Kafka => 4.0,
        Rival::KafkaFlush => 10.0,
    }
}

/// Two rounds, every rival, some cells of each kind; one run failed, one load was too much.
pub(crate) fn report() -> Report {
    let mut runs = Vec::new();
    for (round, rival) in [1, 2].into_iter().flat_map(|round| Rival::USUAL.map(|rival| (round, rival))) {
        let mut push = |scenario: &str, cell: &str, figures: Figures| {
            let failed = rival == Rival::KafkaFlush && cell.starts_with("64 KiB");
            let (figures, failure) = if failed { (None, Some("it broke".to_owned())) } else { (Some(figures), None) };
            runs.push(Run { scenario: scenario.into(), cell: cell.into(), rival, round, figures, failure });
        };
        let slow = slowness(rival) * (1.0 + f64::from(round) / 10.0);
        for cell in ["1 KiB, 16 partitions", "64 KiB, 16 partitions"] {
            push("produce", cell, produced(slow));
        }
        for load in [100.0, 20.0, 1.0] {
            push("latency", &format!("{load} MB/s"), paced(slow, load));
        }
        push("catchup", "1 KiB", consumed(slow));
    }
    let starts = Rival::USUAL.map(|rival| Start {
        rival,
        round: 1,
        ready_ms: 50.0 * slowness(rival),
        idle_resident_bytes: (40e6 * slowness(rival)) as u64,
    });
    let note = |rival: Rival| RivalNote { rival, durability: rival.durability().to_owned(), settings: Vec::new() };
    Report {
        format: 1,
        quick: false,
        machine: Default::default(),
        versions: vec!["thalweg 0.1.0".to_owned()],
        rivals: Rival::USUAL.map(note).to_vec(),
        load: Vec::new(),
        starts: starts.to_vec(),
        runs,
    }
}

fn cost(slow: f64) -> Cost {
    Cost { broker_cpu_s: slow, broker_cpu_settled_s: slow, resident_bytes: (200e6 * slow) as u64, ..Cost::default() }
}

fn produced(slow: f64) -> Figures {
    let cost = cost(slow);
    let cpu_produce_s = Some(cost.broker_cpu_settled_s);
    Figures {
        seconds: slow,
        produced_bytes: 1 << 30,
        produced_records: 1 << 20,
        cpu_produce_s,
        cost,
        ..Figures::default()
    }
}

fn consumed(slow: f64) -> Figures {
    let cost = cost(slow / 8.0);
    let cpu_consume_s = Some(cost.broker_cpu_settled_s);
    Figures {
        seconds: slow,
        consumed_bytes: 1 << 30,
        consumed_records: 1 << 20,
        cpu_consume_s,
        cost,
        ..Figures::default()
    }
}

fn paced(slow: f64, megabytes_per_s: f64) -> Figures {
    let seconds = if slow > 10.0 && megabytes_per_s > 50.0 { 20.0 } else { 10.0 };
    let bytes = (megabytes_per_s * 1e7) as u64;
    let base_us = slow * (300.0 + 10.0 * megabytes_per_s);
    let counts = (0..1000).map(|n| ((base_us * (1.0 + 20.0 * (f64::from(n) / 1000.0).powi(8))) as u64, 10)).collect();
    Figures {
        seconds,
        produced_bytes: bytes,
        produced_records: bytes / 1024,
        offered_bytes_per_s: Some(megabytes_per_s * 1e6),
        offered_records: Some(bytes / 1024),
        latency: Some(Latency::from_counts(counts)),
        cpu_produce_s: Some(slow),
        cost: cost(slow),
        ..Figures::default()
    }
}
