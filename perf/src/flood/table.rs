//! The table of a flood: medians of all rounds, and Thalweg's as a multiple of each rival's. Pure.

use super::outcome::{FloodReport, FloodRun, Outcome, OwnPhases, Phases};
use crate::{
    figures::{Latency, Rival, median},
    report::table::{Cell, SATURATED, header, number, row},
};

/// The usual size of an object's block (`object.block.bytes`).
const BLOCK_BYTES: u64 = 512 << 10;

/// One figure of an outcome, and under which heading it stands.
#[derive(Clone, PartialEq, Debug)]
struct Figure {
    heading: &'static str,
    name: &'static str,
    value: f64,
}

/// The whole table.
pub fn render(report: &FloodReport) -> String {
    let rivals: Vec<Rival> = report.rivals.iter().map(|note| note.rival).collect();
    let mut lines = vec![report.machine.line(), report.versions.join(", ")];
    for note in &report.rivals {
        lines.push(format!("{}: {}", note.rival.name(), note.durability));
    }
    lines.extend(report.load.iter().cloned());
    if report.quick {
        lines.push("A quick run: it shows that everything works, and its figures mean nothing.".to_owned());
    }
    lines.push(String::new());
    lines.push(header(&rivals));
    let all: Vec<(Rival, Vec<Figure>, bool)> = report
        .runs
        .iter()
        .filter_map(|run| run.outcome.as_ref().map(|o| (run.rival, figures(o), o.saturated())))
        .collect();
    let mut heading = "";
    for (under, name) in names(&all) {
        if under != heading {
            lines.push(under.to_owned());
            heading = under;
        }
        let cells: Vec<Cell> = rivals.iter().map(|rival| cell(&all, *rival, under, name)).collect();
        lines.push(row(name, &rivals, &cells));
    }
    for run in report.runs.iter().filter(|run| run.outcome.is_none()) {
        lines.push(progress(run));
    }
    if all.iter().any(|(_, _, saturated)| *saturated) {
        lines.push(format!("\n{SATURATED} the broker could not take the load at the tail, or refused some of it"));
    }
    lines.join("\n")
}

/// One line about a run that has just ended.
pub fn progress(run: &FloodRun) -> String {
    let place = format!("round {}  {:11}", run.round, run.rival.name());
    let Some(outcome) = &run.outcome else {
        let why = run.failure.as_deref().unwrap_or("for no known reason");
        return format!("{place}  FAILED: {why}");
    };
    let p99 = |latency: &Latency| number(ms(latency, 0.99));
    format!(
        "{place}  write p99 ms {} alone, {} in the flood; end to end {}, {}; catch-up {} MB/s",
        p99(&outcome.write.before),
        p99(&outcome.write.during),
        p99(&outcome.end_to_end.before),
        p99(&outcome.end_to_end.during),
        number(outcome.catch_up_bytes_per_s() / 1e6),
    )
}

/// Every heading and name that some run has, in order.
fn names(all: &[(Rival, Vec<Figure>, bool)]) -> Vec<(&'static str, &'static str)> {
    let mut longest: Vec<&Vec<Figure>> = all.iter().map(|(_, figures, _)| figures).collect();
    // Who has most figures has them in the right places.
    longest.sort_by_key(|figures| std::cmp::Reverse(figures.len()));
    let mut names = Vec::new();
    for figure in longest.into_iter().flatten() {
        if !names.contains(&(figure.heading, figure.name)) {
            names.push((figure.heading, figure.name));
        }
    }
    names
}

fn cell(all: &[(Rival, Vec<Figure>, bool)], rival: Rival, heading: &str, name: &str) -> Cell {
    let of_rival = || all.iter().filter(|(who, _, _)| *who == rival);
    let wanted = |figure: &&Figure| figure.heading == heading && figure.name == name;
    let values = of_rival().filter_map(|(_, figures, _)| figures.iter().find(wanted)).map(|f| f.value).collect();
    let mark = if of_rival().any(|(_, _, saturated)| *saturated) { SATURATED } else { "" };
    Cell { value: median(values), mark }
}

/// Everything that is shown of a run.
fn figures(outcome: &Outcome) -> Vec<Figure> {
    let mut shown = Vec::new();
    load(outcome, &mut shown);
    latency("write: from a record's due moment to its acknowledgement", &outcome.write, &mut shown);
    latency("write: from the request's first byte to its acknowledgement", &outcome.request, &mut shown);
    if let Some(own) = &outcome.own {
        of_broker("write: in the broker, by its own histogram", own, &mut shown);
    }
    latency("end to end: from a record's due moment to a follower", &outcome.end_to_end, &mut shown);
    flood(outcome, &mut shown);
    shown
}

fn push(shown: &mut Vec<Figure>, heading: &'static str, name: &'static str, value: Option<f64>) {
    shown.extend(value.map(|value| Figure { heading, name, value }));
}

fn load(outcome: &Outcome, shown: &mut Vec<Figure>) {
    let heading = "load";
    push(shown, heading, "stored before, MB/s", Some(outcome.history_bytes_per_s / 1e6));
    push(shown, heading, "taken with a reader, MB/s", outcome.maximum_bytes_per_s.map(|bytes| bytes / 1e6));
    push(shown, heading, "until it is stored, MB/s", outcome.lasting_bytes_per_s.map(|bytes| bytes / 1e6));
    push(shown, heading, "at the tail, MB/s", Some(outcome.offered_bytes_per_s / 1e6));
}

fn ms(latency: &Latency, q: f64) -> f64 {
    latency.quantile_us(q) as f64 / 1000.0
}

fn latency(heading: &'static str, phases: &Phases, shown: &mut Vec<Figure>) {
    let Phases { before, during, .. } = phases;
    push(shown, heading, "p50 alone, ms", Some(ms(before, 0.5)));
    push(shown, heading, "p50 in the flood, ms", Some(ms(during, 0.5)));
    push(shown, heading, "p99 alone, ms", Some(ms(before, 0.99)));
    push(shown, heading, "p99 in the flood, ms", Some(ms(during, 0.99)));
    push(shown, heading, "p99 in the flood / alone", ratio(ms(during, 0.99), ms(before, 0.99)));
    push(shown, heading, "p99.9 alone, ms", Some(ms(before, 0.999)));
    push(shown, heading, "p99.9 in the flood, ms", Some(ms(during, 0.999)));
}

fn of_broker(heading: &'static str, own: &OwnPhases, shown: &mut Vec<Figure>) {
    let [before, during] = [&own.before, &own.during].map(|buckets| buckets.quantile(0.99).map(|s| s * 1000.0));
    push(shown, heading, "p99 alone, ms", before);
    push(shown, heading, "p99 in the flood, ms", during);
    push(
        shown,
        heading,
        "p99 in the flood / alone",
        during.zip(before).and_then(|(during, before)| ratio(during, before)),
    );
}

fn flood(outcome: &Outcome, shown: &mut Vec<Figure>) {
    let heading = "flood";
    let seconds = outcome.marks.flood_to_s - outcome.marks.flood_from_s;
    let (alone, most) = outcome.resident_bytes();
    push(shown, heading, "catch-up of all readers, MB/s", Some(outcome.catch_up_bytes_per_s() / 1e6));
    push(shown, heading, "lasted, s", Some(seconds));
    let ended = outcome.readers.iter().filter(|reader| reader.ended).count();
    push(shown, heading, "readers that read everything, %", ratio(100.0 * ended as f64, outcome.readers.len() as f64));
    push(shown, heading, "readers' CPU, cores", ratio(outcome.readers.iter().map(|r| r.cpu_s).sum(), seconds));
    push(shown, heading, "broker's CPU, cores", outcome.in_flood(|sample| sample.cpu_s));
    push(shown, heading, "broker's reads of block devices, MB/s", outcome.in_flood(|s| s.disk_read_bytes as f64 / 1e6));
    push(shown, heading, "resident before, MB", Some(alone as f64 / 1e6));
    push(shown, heading, "resident at most, MB", Some(most as f64 / 1e6));
    let Some(store) = &outcome.store else { return };
    let blocks = outcome.distinct_bytes.div_ceil(BLOCK_BYTES) as f64;
    push(shown, heading, "blocks in what was read", Some(blocks));
    push(shown, heading, "reads of the object store", Some(store.reads as f64));
    push(shown, heading, "reads of the object store per block", ratio(store.reads as f64, blocks));
    push(
        shown,
        heading,
        "bytes fetched per byte of what was read",
        ratio(store.read_bytes as f64, outcome.distinct_bytes as f64),
    );
    let cold = store.tiers.get("object").copied().unwrap_or_default();
    push(shown, heading, "read from objects, % of catch-up", ratio(100.0 * cold as f64, outcome.read_bytes as f64));
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    (to > 0.0).then(|| of / to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flood::outcome::example::report;

    fn line<'a>(table: &'a str, heading: &str, name: &str) -> Vec<&'a str> {
        let from = table.lines().skip_while(|line| !line.starts_with(heading));
        let line = from.skip(1).find(|line| line.trim_start().starts_with(name)).expect("the row");
        line.trim_start()[name.len()..].split_whitespace().collect()
    }

    #[test]
    fn rows_have_the_figures_of_both_and_the_ratios() {
        let table = render(&report());
        assert_eq!(line(&table, "write: from a record", "p99 alone, ms"), ["2.00", "8.00", "0.250"]);
        assert_eq!(line(&table, "write: from a record", "p99 in the flood / alone"), ["1.50", "3.00", "0.500"]);
        assert_eq!(line(&table, "flood", "catch-up of all readers, MB/s"), ["400", "200", "2.00"]);
        assert_eq!(line(&table, "flood", "resident at most, MB"), ["600", "1200", "0.500"]);
    }

    #[test]
    fn what_only_one_has_is_shown_of_it_alone() {
        let table = render(&report());
        assert_eq!(line(&table, "write: in the broker", "p99 alone, ms"), ["1.00", "-", "-"]);
        assert_eq!(line(&table, "flood", "reads of the object store per block"), ["0.500", "-", "-"]);
    }

    #[test]
    fn what_failed_and_what_was_too_much_is_said() {
        let mut report = report();
        report.runs[1].outcome.as_mut().expect("measured").unsent = 1;
        report.runs[0].outcome = None;
        report.runs[0].failure = Some("it broke".to_owned());
        let table = render(&report);
        assert!(table.contains("FAILED: it broke") && table.contains("could not take the load"), "{table}");
        assert_eq!(line(&table, "write: from a record", "p99 alone, ms"), ["-", "8.00!", "-"]);
    }
}
