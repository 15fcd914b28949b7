//! The pictures, as PNG and SVG: latency over the load on offer, percentiles, CPU per GiB.
//!
//! The font is a crate's (DejaVu Sans), so that a picture looks the same on every machine and none needs fonts installed.

use std::{ops::Range, path::Path};

use plotters::{
    coord::{
        CoordTranslate, Shift,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    prelude::*,
    style::{
        register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    Report,
    series::{self, Bars, Curve, NINES},
};
use crate::{figures::Rival, report::table::number};

const SIZE: (u32, u32) = (1100, 700);
pub(super) const FONT: &str = "sans-serif";
pub(super) const TITLE_PX: i32 = 24;
pub(super) const TEXT_PX: i32 = 16;
/// Room for the names of bars.
const NAMES_PX: i32 = 330;

pub(super) type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// One picture, before it is known into what it is drawn.
enum Picture {
    OverLoad(Lines),
    Percentiles(Lines),
    Bars(String, Vec<Bars>),
}

struct Lines {
    title: String,
    x_name: &'static str,
    curves: Vec<Curve>,
}

pub(super) fn draw(report: &Report, directory: &Path) -> Result<Vec<String>, String> {
    register()?;
    let mut names = Vec::new();
    for (name, picture) in pictures(report) {
        save(&picture, &name, SIZE, directory)?;
        names.push(name);
    }
    Ok(names)
}

/// What can be drawn into a file of either kind.
pub(super) trait Paint {
    fn paint<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Drawn<B>;
}

/// Draws a picture of `size` pixels as NAME.png and NAME.svg.
pub(super) fn save(picture: &impl Paint, name: &str, size: (u32, u32), directory: &Path) -> Result<(), String> {
    let failed = |why: String| format!("{name} cannot be drawn: {why}");
    let (png, svg) = (directory.join(format!("{name}.png")), directory.join(format!("{name}.svg")));
    let root = BitMapBackend::new(&png, size).into_drawing_area();
    picture.paint(&root).and_then(|()| root.present()).map_err(|e| failed(e.to_string()))?;
    let root = SVGBackend::new(&svg, size).into_drawing_area();
    picture.paint(&root).and_then(|()| root.present()).map_err(|e| failed(e.to_string()))
}

/// Draws the legend of what a chart holds.
pub(super) fn legend<'a, B: DrawingBackend + 'a, C: CoordTranslate>(
    context: &mut ChartContext<'a, B, C>,
    position: SeriesLabelPosition,
    margin_px: u32,
) -> Drawn<B> {
    context
        .configure_series_labels()
        .position(position)
        .margin(margin_px)
        .legend_area_size(34)
        .label_font((FONT, TEXT_PX))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4))
        .draw()
}

/// Makes the font known under [`FONT`].
pub(super) fn register() -> Result<(), String> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).map_err(|_| "the font cannot be read".to_owned())
}

/// Those for which there are figures, by the names of their files.
fn pictures(report: &Report) -> Vec<(String, Picture)> {
    let warning = if report.quick { " (quick run: means nothing)" } else { "" };
    let mut pictures = Vec::new();
    let curves = series::latency_over_load(report);
    if !curves.is_empty() {
        let title = format!("Latency over offered load: p99, and p50 dashed{warning}");
        pictures
            .push(("latency-over-load".to_owned(), Picture::OverLoad(Lines { title, x_name: "MB/s offered", curves })));
    }
    for scenario in ["latency", "small"] {
        for cell in series::cells(report, scenario).into_iter().filter(|cell| *cell != "maximum") {
            let curves = series::percentiles(report, scenario, cell);
            if !curves.is_empty() {
                let lines = Lines { title: format!("Latency at {cell}{warning}"), x_name: "percentile", curves };
                pictures.push((format!("percentiles-{}", file_name(cell)), Picture::Percentiles(lines)));
            }
        }
    }
    let bars = series::cpu_per_gib(report);
    if !bars.is_empty() {
        let title = format!("Broker CPU seconds per GiB{warning}");
        pictures.push(("cpu-per-gib".to_owned(), Picture::Bars(title, bars)));
    }
    pictures
}

/// Letters and digits, the rest as single dashes.
fn file_name(cell: &str) -> String {
    let parts: Vec<&str> = cell.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_lowercase()
}

pub(super) fn colour(rival: Rival) -> RGBColor {
    // Told apart by the colour-blind too (Okabe and Ito).
    match rival {
        Rival::Thalweg => RGBColor(0, 114, 178),
        Rival::ThalwegBefore => RGBColor(86, 180, 233),
        Rival::Kafka => RGBColor(230, 159, 0),
        Rival::KafkaFlush => RGBColor(213, 94, 0),
    }
}

impl Paint for Picture {
    fn paint<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Drawn<B> {
        root.fill(&WHITE)?;
        match self {
            Picture::OverLoad(chart) => {
                let loads = chart.curves.iter().flat_map(|curve| curve.points.iter().map(|(x, _)| *x));
                let x = decades(loads);
                lines(root, chart, x.log_scale(), &|mb: &f64| number(*mb), true)
            }
            Picture::Percentiles(chart) => lines(root, chart, 0.0..NINES, &|nines: &f64| percentile(*nines), false),
            Picture::Bars(title, groups) => bars(root, title, groups),
        }
    }
}

/// The whole decades that hold all values.
pub(super) fn decades(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    let (low, high) = (low.max(1e-3).log10().floor(), high.max(1e-3).log10().ceil());
    10_f64.powf(low)..10_f64.powf(high.max(low + 1.0))
}

fn percentile(nines: f64) -> String {
    let decimals = (nines.ceil() as usize).saturating_sub(2);
    format!("{:.decimals$} %", 100.0 * (1.0 - 10_f64.powf(-nines)))
}

fn lines<B, X>(
    root: &DrawingArea<B, Shift>,
    chart: &Lines,
    x: X,
    x_text: &dyn Fn(&f64) -> String,
    dots: bool,
) -> Drawn<B>
where
    B: DrawingBackend,
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let y = decades(chart.curves.iter().flat_map(|curve| curve.points.iter().map(|(_, y)| *y)));
    let mut context = ChartBuilder::on(root)
        .caption(&chart.title, (FONT, TITLE_PX))
        .margin(20)
        .x_label_area_size(55)
        .y_label_area_size(85)
        .build_cartesian_2d(x, y.log_scale())?;
    context
        .configure_mesh()
        .x_desc(chart.x_name)
        .y_desc("latency, ms")
        .x_label_formatter(&|x| x_text(x))
        .y_label_formatter(&|y| format!("{y}"))
        .label_style((FONT, TEXT_PX))
        .axis_desc_style((FONT, TEXT_PX))
        .draw()?;
    for curve in &chart.curves {
        let (colour, points) = (colour(curve.rival), curve.points.iter().copied());
        if curve.dashed {
            context.draw_series(DashedLineSeries::new(points.clone(), 8, 6, colour.stroke_width(2)))?;
        } else {
            context
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(3)))?
                .label(curve.rival.legend())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
        }
        if dots {
            context.draw_series(points.map(|point| Circle::new(point, 4, colour.filled())))?;
        }
    }
    legend(&mut context, SeriesLabelPosition::UpperLeft, 14)
}

fn bars<B: DrawingBackend>(root: &DrawingArea<B, Shift>, title: &str, groups: &[Bars]) -> Drawn<B> {
    let most = groups.iter().flat_map(|group| &group.values).map(|(_, value)| *value).fold(0.0, f64::max);
    let mut context = ChartBuilder::on(root)
        .caption(title, (FONT, TITLE_PX))
        .margin(20)
        .x_label_area_size(55)
        .y_label_area_size(NAMES_PX)
        .build_cartesian_2d(0.0..(most * 1.15).max(0.1), 0.0..groups.len() as f64 + 1.0)?;
    context
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("CPU seconds per GiB of values")
        .label_style((FONT, TEXT_PX))
        .axis_desc_style((FONT, TEXT_PX))
        .draw()?;
    let text = |h| TextStyle::from((FONT, TEXT_PX).into_font()).pos(Pos::new(h, VPos::Center));
    for rival in Rival::ALL {
        let colour = colour(rival);
        let values = groups.iter().enumerate().flat_map(|(n, group)| {
            let of_rival = group.values.iter().enumerate().filter(|(_, (who, _))| *who == rival);
            // The first group stands at the top; the uppermost place is the legend's.
            let top = groups.len() as f64 - n as f64;
            of_rival.map(move |(at, (_, value))| (top - 0.1 - 0.27 * at as f64, *value))
        });
        let drawn = values.clone().map(|(y, value)| Rectangle::new([(0.0, y), (value, y - 0.25)], colour.filled()));
        context
            .draw_series(drawn)?
            .label(rival.legend())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 24, y + 5)], colour.filled()));
        for (y, value) in values {
            let (x, y) = context.backend_coord(&(value, y - 0.125));
            root.draw(&Text::new(number(value), (x + 6, y), text(HPos::Left)))?;
        }
    }
    for (n, group) in groups.iter().enumerate() {
        let (x, y) = context.backend_coord(&(0.0, groups.len() as f64 - n as f64 - 0.5));
        root.draw(&Text::new(group.label.clone(), (x - 10, y), text(HPos::Right)))?;
    }
    legend(&mut context, SeriesLabelPosition::UpperRight, 10)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::example::report;

    #[test]
    fn every_picture_is_drawn_twice_and_shows_text() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = draw(&report(), directory.path()).expect("drawn");
        assert!(names.contains(&"latency-over-load".to_owned()) && names.contains(&"percentiles-20-mb-s".to_owned()));
        for name in names {
            let png = fs::read(directory.path().join(format!("{name}.png"))).expect("there");
            assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{name}: {} bytes", png.len());
            let svg = fs::read_to_string(directory.path().join(format!("{name}.svg"))).expect("there");
            assert!(svg.contains("Thalweg (durable: O_DSYNC)") && svg.contains("fsync"), "{name} says no fsync mode");
        }
    }

    #[test]
    fn an_axis_reaches_from_decade_to_decade() {
        assert_eq!(decades([0.3, 20.0].into_iter()), 0.1..100.0);
        assert_eq!(decades([1.0].into_iter()), 1.0..10.0);
        assert!(decades([0.0].into_iter()).start > 0.0, "a log scale has no zero");
    }

    #[test]
    fn nines_read_as_percentiles() {
        assert_eq!([0.0, 1.0, 2.0, 3.0, 4.0].map(percentile), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }
}
