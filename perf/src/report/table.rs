//! The table in the terminal: medians of all rounds, and Thalweg's as a multiple of each rival's. Pure.

use super::{
    Report,
    metrics::{Metric, metrics},
};
use crate::figures::{Figures, Rival, Run, median};

/// Behind a value whose load the broker could not take.
pub(crate) const SATURATED: &str = "!";
/// Widths of the columns: names, values, ratios.
const NAME: usize = 40;
const VALUE: usize = 12;
const RATIO: usize = 14;

/// The whole table.
pub fn render(report: &Report) -> String {
    let rivals: Vec<Rival> = report.rivals.iter().map(|note| note.rival).collect();
    let mut lines = vec![report.machine.line(), report.versions.join(", ")];
    lines.extend(report.rivals.iter().map(|note| format!("{}: {}", note.rival.name(), note.durability)));
    lines.extend(report.load.iter().cloned());
    if report.quick {
        lines.push("A quick run: it shows that everything works, and its figures mean nothing.".to_owned());
    }
    lines.push(String::new());
    lines.push(header(&rivals));
    lines.extend(start_rows(report, &rivals));
    for (scenario, cell) in cells(&report.runs) {
        let runs: Vec<&Run> = report.runs.iter().filter(|run| run.scenario == scenario && run.cell == cell).collect();
        lines.push(format!("{scenario}: {cell}"));
        lines.extend(cell_rows(&runs, &rivals));
    }
    if lines.iter().any(|line| line.contains(SATURATED)) {
        lines.push(format!("\n{SATURATED} the broker could not take the load on offer, or refused some of it"));
    }
    lines.join("\n")
}

/// The names of the columns.
pub(crate) fn header(rivals: &[Rival]) -> String {
    let mut line = " ".repeat(4 + NAME);
    rivals.iter().for_each(|rival| line.push_str(&format!("{:>VALUE$}", rival.name())));
    for rival in others(rivals) {
        line.push_str(&format!("{:>RATIO$}", format!("x {}", rival.name())));
    }
    line
}

fn others(rivals: &[Rival]) -> impl Iterator<Item = Rival> {
    rivals.iter().copied().filter(|rival| *rival != Rival::Thalweg && rivals.contains(&Rival::Thalweg))
}

/// Scenario and cell of each run, in the order in which they first ran.
fn cells(runs: &[Run]) -> Vec<(&str, &str)> {
    let mut cells: Vec<(&str, &str)> = Vec::new();
    for run in runs {
        if !cells.contains(&(&run.scenario, &run.cell)) {
            cells.push((&run.scenario, &run.cell));
        }
    }
    cells
}

fn start_rows(report: &Report, rivals: &[Rival]) -> Vec<String> {
    let of = |value: fn(&crate::figures::Start) -> f64| {
        let value_of = |rival: &Rival| {
            let starts = report.starts.iter().filter(|start| start.rival == *rival);
            Cell { value: median(starts.map(value).collect()), mark: "" }
        };
        rivals.iter().map(value_of).collect::<Vec<_>>()
    };
    vec![
        "start".to_owned(),
        row("first answer, ms", rivals, &of(|start| start.ready_ms)),
        row("resident idle, MB", rivals, &of(|start| start.idle_resident_bytes as f64 / 1e6)),
    ]
}

/// What stands in one column.
pub(crate) struct Cell {
    pub(crate) value: Option<f64>,
    /// Behind the value.
    pub(crate) mark: &'static str,
}

fn cell_rows(runs: &[&Run], rivals: &[Rival]) -> Vec<String> {
    let mut names: Vec<&'static str> = Vec::new();
    for metric in runs.iter().filter_map(|run| run.figures.as_ref()).flat_map(metrics) {
        if !names.contains(&metric.name) {
            names.push(metric.name);
        }
    }
    let cell = |rival: Rival, name: &str| {
        let figures: Vec<&Figures> =
            runs.iter().filter(|run| run.rival == rival).filter_map(|run| run.figures.as_ref()).collect();
        let value = |figures: &&Figures| metrics(figures).into_iter().find(|m: &Metric| m.name == name);
        let values = figures.iter().filter_map(value).map(|metric| metric.value).collect();
        let short = figures.iter().any(|f| f.saturated() || (f.offered_records.is_some() && f.refused > 0));
        Cell { value: median(values), mark: if short { SATURATED } else { "" } }
    };
    let mut rows: Vec<String> = names
        .iter()
        .map(|name| row(name, rivals, &rivals.iter().map(|rival| cell(*rival, name)).collect::<Vec<_>>()))
        .collect();
    for run in runs.iter().filter(|run| run.figures.is_none()) {
        let why = run.failure.as_deref().unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        rows.push(format!("    round {}, {} FAILED: {why}", run.round, run.rival.name()));
    }
    rows
}

/// One figure of all, and the ratios.
pub(crate) fn row(name: &str, rivals: &[Rival], cells: &[Cell]) -> String {
    let mut line = format!("    {name:NAME$}");
    for cell in cells {
        let text = cell.value.map_or("-".to_owned(), |value| number(value) + cell.mark);
        line.push_str(&format!("{text:>VALUE$}"));
    }
    let value_of = |wanted: Rival| rivals.iter().position(|rival| *rival == wanted).and_then(|at| cells[at].value);
    for rival in others(rivals) {
        let ratio = value_of(Rival::Thalweg).zip(value_of(rival)).filter(|(_, theirs)| *theirs > 0.0);
        let text = ratio.map_or("-".to_owned(), |(ours, theirs)| number(ours / theirs));
        line.push_str(&format!("{text:>RATIO$}"));
    }
    line
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example::report;

    fn line<'a>(table: &'a str, cell: &str, name: &str) -> Vec<&'a str> {
        let from = table.lines().skip_while(|line| *line != cell);
        let line = from.skip(1).find(|line| line.trim_start().starts_with(name)).expect("the row");
        line.trim_start()[name.len()..].split_whitespace().collect()
    }

    #[test]
    fn a_row_has_the_medians_and_the_ratios() {
        let table = render(&report());
        // 2^30 bytes in 1.1 and 1.2 s; Kafka takes four times as long, and ten times with fsync.
        assert_eq!(
            line(&table, "produce: 1 KiB, 16 partitions", "produced MB/s"),
            ["935", "234", "93.5", "4.00", "10.0"]
        );
        assert_eq!(line(&table, "start", "first answer, ms"), ["50.0", "200", "500", "0.250", "0.100"]);
    }

    #[test]
    fn what_failed_and_what_was_too_much_is_said() {
        let table = render(&report());
        assert_eq!(line(&table, "produce: 64 KiB, 16 partitions", "produced MB/s"), ["935", "234", "-", "4.00", "-"]);
        assert!(table.contains("round 2, kafka-flush FAILED: it broke"), "{table}");
        assert!(line(&table, "latency: 100 MB/s", "p99 ms")[2].ends_with('!'), "{table}");
        assert!(!line(&table, "latency: 20 MB/s", "p99 ms")[2].ends_with('!'), "{table}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([1234.5, 12.345, 1.2345, 0.12345].map(number), ["1234", "12.3", "1.23", "0.123"]);
    }
}
