//! The curves and bars of the pictures. Pure.

use super::{Report, metrics::per_gib};
use crate::figures::{Figures, Latency, Rival, Run, median};

/// The curve of one rival.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Curve {
    pub(super) rival: Rival,
    /// p50, where the picture shows two curves.
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Bars that stand together: one cell, one value for each rival that has one.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Bars {
    pub(super) label: String,
    pub(super) values: Vec<(Rival, f64)>,
}

/// Runs of one cell and rival that did not fail.
fn figures<'a>(
    report: &'a Report,
    scenario: &'a str,
    cell: &'a str,
    rival: Rival,
) -> impl Iterator<Item = &'a Figures> {
    let wanted = move |run: &&Run| run.scenario == scenario && run.cell == cell && run.rival == rival;
    report.runs.iter().filter(wanted).filter_map(|run| run.figures.as_ref())
}

/// Cells of a scenario, in the order in which they ran.
pub(super) fn cells<'a>(report: &'a Report, scenario: &str) -> Vec<&'a str> {
    let mut cells: Vec<&str> = Vec::new();
    for run in report.runs.iter().filter(|run| run.scenario == scenario) {
        if !cells.contains(&run.cell.as_str()) {
            cells.push(&run.cell);
        }
    }
    cells
}

/// p99 and p50 in milliseconds over the load on offer in MB/s: medians of all rounds.
pub(super) fn latency_over_load(report: &Report) -> Vec<Curve> {
    let mut curves = Vec::new();
    for (rival, (q, dashed)) in Rival::ALL.iter().flat_map(|r| [(0.99, false), (0.5, true)].map(|q| (*r, q))) {
        let point = |cell: &&str| {
            let of = |value: fn(&Figures, f64) -> Option<f64>| {
                median(figures(report, "latency", cell, rival).filter_map(|f| value(f, q)).collect())
            };
            let load = of(|f, _| f.offered_bytes_per_s.map(|bytes| bytes / 1e6))?;
            Some((load, of(|f, q| f.latency.as_ref().map(|l| l.quantile_us(q) as f64 / 1000.0))?))
        };
        let mut points: Vec<(f64, f64)> = cells(report, "latency").iter().filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !points.is_empty() {
            curves.push(Curve { rival, dashed, points });
        }
    }
    curves
}

/// How far the percentile curves reach: 99.99 %.
pub(super) const NINES: f64 = 4.0;
const STEPS_PER_NINE: u32 = 20;

/// Latency in milliseconds over the nines of the percentile (1 is 90 %, 2 is 99 %), all rounds together.
pub(super) fn percentiles(report: &Report, scenario: &str, cell: &str) -> Vec<Curve> {
    let curve = |rival| {
        let latency = Latency::merged(figures(report, scenario, cell, rival).filter_map(|f| f.latency.as_ref()));
        let steps = (0..=(NINES as u32) * STEPS_PER_NINE).map(|step| f64::from(step) / f64::from(STEPS_PER_NINE));
        let points = steps.map(|nines| (nines, latency.quantile_us(1.0 - 10_f64.powf(-nines)) as f64 / 1000.0));
        (latency.count > 0).then(|| Curve { rival, dashed: false, points: points.collect() })
    };
    Rival::ALL.into_iter().filter_map(curve).collect()
}

/// Broker CPU seconds per GiB of every closed cell: medians of all rounds.
pub(super) fn cpu_per_gib(report: &Report) -> Vec<Bars> {
    let mut bars = Vec::new();
    for scenario in ["produce", "fanout", "tail", "catchup", "librdkafka"] {
        for cell in cells(report, scenario) {
            let value = |rival| {
                let of_run = |f: &Figures| match (f.cpu_produce_s, f.cpu_consume_s) {
                    (_, Some(cpu)) => per_gib(cpu, f.consumed_bytes),
                    (Some(cpu), None) if f.offered_bytes_per_s.is_none() => per_gib(cpu, f.produced_bytes),
                    (None, None) => per_gib(f.cost.broker_cpu_settled_s, f.produced_bytes + f.consumed_bytes),
                    // Under a light load most of the CPU is waking up, which the latency cells show.
                    (Some(_), None) => None,
                };
                let value = median(figures(report, scenario, cell, rival).filter_map(of_run).collect());
                value.map(|value| (rival, value))
            };
            let values: Vec<(Rival, f64)> = Rival::ALL.into_iter().filter_map(value).collect();
            if !values.is_empty() {
                bars.push(Bars { label: format!("{scenario}: {cell}"), values });
            }
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example::report;

    #[test]
    fn a_curve_rises_with_the_load_and_ends_at_the_greatest() {
        let curves = latency_over_load(&report());
        let p99 = curves.iter().find(|c| c.rival == Rival::Thalweg && !c.dashed).expect("there");
        assert_eq!(p99.points.first().map(|p| p.0), Some(1.0));
        assert!(p99.points.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", p99.points);
        let p50 = curves.iter().find(|c| c.rival == Rival::Thalweg && c.dashed).expect("there");
        assert!(p50.points.iter().zip(&p99.points).all(|(low, high)| low.1 <= high.1));
    }

    #[test]
    fn percentile_curves_never_fall() {
        for curve in percentiles(&report(), "latency", "20 MB/s") {
            assert!(curve.points.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{curve:?}");
        }
        assert!(percentiles(&report(), "latency", "no such cell").is_empty());
    }

    #[test]
    fn failed_runs_have_no_bar() {
        let bars = cpu_per_gib(&report());
        let failed = bars.iter().find(|bars| bars.label == "produce: 64 KiB, 16 partitions").expect("there");
        assert!(failed.values.iter().all(|(rival, _)| *rival != Rival::KafkaFlush), "{failed:?}");
    }
}
