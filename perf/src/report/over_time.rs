//! The picture of a flood, as PNG and SVG: latency second by second, the flood marked.

use std::{ops::Range, path::Path};

use plotters::{coord::Shift, prelude::*};

use super::plot::{Drawn, FONT, Paint, TEXT_PX, TITLE_PX, colour, decades, legend, register, save};
use crate::{
    figures::Rival,
    flood::outcome::{FloodReport, Marks, Outcome, Second},
};

const SIZE: (u32, u32) = (1100, 1000);
const NAME: &str = "cold-reads";
/// How strongly a flood tints its time, each broker's in its own colour.
const TINT: f64 = 0.12;

/// One panel: what is shown, and of whom.
struct Panel<'a> {
    title: String,
    curves: Vec<(Rival, Marks, &'a [Second])>,
}

pub(super) fn draw(report: &FloodReport, directory: &Path) -> Result<Vec<String>, String> {
    let panels = panels(report);
    if panels.iter().all(|panel| panel.curves.is_empty()) {
        return Ok(Vec::new());
    }
    register()?;
    save(&panels, NAME, SIZE, directory)?;
    Ok(vec![NAME.to_owned()])
}

/// Writes above, end to end below; of each broker the last round that was measured.
fn panels(report: &FloodReport) -> [Panel<'_>; 2] {
    let last = |rival: Rival| {
        let of_rival = report.runs.iter().filter(move |run| run.rival == rival);
        of_rival.filter_map(|run| run.outcome.as_ref()).next_back().map(|outcome| (rival, outcome))
    };
    let measured: Vec<(Rival, &Outcome)> = Rival::ALL.into_iter().filter_map(last).collect();
    let curves = |seconds: fn(&Outcome) -> &[Second]| {
        measured.iter().map(|(rival, outcome)| (*rival, outcome.marks, seconds(outcome))).collect()
    };
    let loads: Vec<String> = measured
        .iter()
        .map(|(rival, outcome)| format!("{} {:.0}", rival.name(), outcome.offered_bytes_per_s / 1e6))
        .collect();
    let warning = if report.quick { " (quick run: means nothing)" } else { "" };
    let title = |what: &str| format!("{what}, p99 of each second{warning}");
    [
        Panel {
            title: format!("{}; MB/s: {}", title("Acknowledged"), loads.join(", ")),
            curves: curves(|outcome| &outcome.write_seconds),
        },
        Panel { title: title("Read by a follower"), curves: curves(|outcome| &outcome.end_to_end_seconds) },
    ]
}

impl Paint for [Panel<'_>; 2] {
    fn paint<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Drawn<B> {
        root.fill(&WHITE)?;
        for (area, panel) in root.split_evenly((self.len(), 1)).iter().zip(self) {
            paint_panel(area, panel)?;
        }
        Ok(())
    }
}

fn ms(us: u64) -> f64 {
    (us.max(1)) as f64 / 1000.0
}

fn paint_panel<B: DrawingBackend>(area: &DrawingArea<B, Shift>, panel: &Panel<'_>) -> Drawn<B> {
    let all = || panel.curves.iter().flat_map(|(_, _, seconds)| seconds.iter());
    let y: Range<f64> = decades(all().map(|second| ms(second.p99_us)));
    let end_s = all().map(|second| f64::from(second.at_s) + 1.0).fold(1.0, f64::max);
    let mut context = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, TITLE_PX))
        .margin(20)
        .x_label_area_size(55)
        .y_label_area_size(85)
        .build_cartesian_2d(0.0..end_s, y.clone().log_scale())?;
    context
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("latency, ms")
        .y_label_formatter(&|y| format!("{y}"))
        .label_style((FONT, TEXT_PX))
        .axis_desc_style((FONT, TEXT_PX))
        .draw()?;
    for (rival, marks, _) in &panel.curves {
        let corners = [(marks.flood_from_s, y.start), (marks.flood_to_s.min(end_s), y.end)];
        context.draw_series([Rectangle::new(corners, colour(*rival).mix(TINT).filled())])?;
    }
    for (rival, _, seconds) in &panel.curves {
        let colour = colour(*rival);
        // A second's figure stands in its middle.
        let points = seconds.iter().map(|second| (f64::from(second.at_s) + 0.5, ms(second.p99_us)));
        context
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(format!("{}; tinted: its flood", rival.legend()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
    }
    legend(&mut context, SeriesLabelPosition::UpperLeft, 10)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::flood::outcome::example::report;

    #[test]
    fn the_picture_is_drawn_twice_and_names_both() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(draw(&report(), directory.path()), Ok(vec![NAME.to_owned()]));
        let png = fs::read(directory.path().join("cold-reads.png")).expect("there");
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{} bytes", png.len());
        let svg = fs::read_to_string(directory.path().join("cold-reads.svg")).expect("there");
        for text in ["Thalweg (durable: O_DSYNC)", "Kafka (not durable: no fsync)", "tinted: its flood"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        let tints = svg.matches("opacity=\"0.12\"").count();
        assert!(tints >= 4, "a flood for each broker in each panel, not {tints}");
    }

    #[test]
    fn nothing_measured_is_no_picture() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut report = report();
        report.runs.iter_mut().for_each(|run| run.outcome = None);
        assert_eq!(draw(&report, directory.path()), Ok(Vec::new()));
    }
}
