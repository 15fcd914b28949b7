//! What becomes of the figures: a table in the terminal, JSON with all of them, and pictures.

pub mod json;
pub mod metrics;
mod over_time;
mod plot;
mod series;
pub mod table;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    figures::{Rival, Run, Start},
    flood::FloodReport,
    machine::Machine,
};

/// All of a comparison.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Version of this layout, 1.
    pub format: u32,
    /// Whether this was only a look at whether everything works.
    pub quick: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured: names and versions.
    pub versions: Vec<String>,
    /// Who was measured, and under which settings.
    pub rivals: Vec<RivalNote>,
    /// How much was measured, in words.
    pub load: Vec<String>,
    /// Every start of a broker.
    pub starts: Vec<Start>,
    /// Every run.
    pub runs: Vec<Run>,
}

/// What must be said of a rival beside its figures.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RivalNote {
    /// Who.
    pub rival: Rival,
    /// What its acknowledgement means.
    pub durability: String,
    /// Settings that are not its defaults.
    pub settings: Vec<String>,
}

/// One line about a run that has just ended.
pub fn progress(run: &Run) -> String {
    let place = format!("round {}  {:10}  {:28}  {:11}", run.round, run.scenario, run.cell, run.rival.name());
    match (&run.figures, &run.failure) {
        (Some(figures), _) => {
            let shown = metrics::metrics(figures);
            let shown: Vec<String> = shown.iter().map(|m| format!("{} {}", m.name, table::number(m.value))).collect();
            let saturated = if figures.saturated() { "  (could not take the load)" } else { "" };
            format!("{place}  {}{saturated}", shown.join(", "))
        }
        (None, why) => format!("{place}  FAILED: {}", why.as_deref().unwrap_or("for no known reason")),
    }
}

/// Draws all pictures into a directory, as PNG and as SVG; returns their names.
///
/// # Errors
/// When one cannot be drawn or written.
pub fn draw(report: &Report, directory: &Path) -> Result<Vec<String>, String> {
    plot::draw(report, directory)
}

/// Draws the picture of a flood into a directory, as PNG and as SVG; returns its name, or none when nothing was measured.
///
/// # Errors
/// When it cannot be drawn or written.
pub fn draw_flood(report: &FloodReport, directory: &Path) -> Result<Vec<String>, String> {
    over_time::draw(report, directory)
}

#[cfg(test)]
pub(crate) mod example;
