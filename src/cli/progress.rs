//! How commands that work long show it, on stderr: a bar with bytes, rate and time left on a terminal, now and then a line
//! elsewhere, and JSON lines where a program reads (`--json`).
#![expect(clippy::disallowed_methods, reason = "a command measures its own rate")]

use std::{
    cell::RefCell,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cluster::Progress;

/// Lines come no faster than this.
const LINE: Duration = Duration::from_secs(5);
const BAR: &str = "{msg} [{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";

/// Shows progress on stderr.
pub struct Shown {
    json: bool,
    work: RefCell<Option<Work>>,
}

struct Work {
    what: String,
    bytes: u64,
    done: u64,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Shown {
    /// For a person, or with `json` for a program.
    pub fn new(json: bool) -> Shown {
        Shown { json, work: RefCell::new(None) }
    }

    fn line(&self, work: &Work) {
        let seconds = work.began.elapsed().as_secs_f64().max(0.001);
        let rate = work.done as f64 / seconds;
        let left = if rate > 0.0 { work.bytes.saturating_sub(work.done) as f64 / rate } else { f64::INFINITY };
        if self.json {
            let left = left.is_finite().then_some(left.round());
            eprintln!(
                "{}",
                serde_json::json!({"what": work.what, "bytes": work.done, "of_bytes": work.bytes,
                    "bytes_per_second": rate.round(), "seconds_left": left})
            );
        } else {
            let (done, bytes, mb) = (work.done as f64 / 1e6, work.bytes as f64 / 1e6, rate / 1e6);
            eprintln!("{}: {done:.1} of {bytes:.1} MB, {mb:.1} MB/s, {left:.0} s left", work.what);
        }
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, bytes: u64) {
        let bar = (!self.json && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(bytes);
            bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(what.to_owned());
            bar
        });
        let now = Instant::now();
        self.work.replace(Some(Work { what: what.to_owned(), bytes, done: 0, began: now, told: now, bar }));
    }

    fn advance(&self, bytes: u64) {
        if let Some(work) = &mut *self.work.borrow_mut() {
            work.done += bytes;
            match &work.bar {
                Some(bar) => bar.inc(bytes),
                None if work.told.elapsed() >= LINE => {
                    work.told = Instant::now();
                    self.line(work);
                }
                None => {}
            }
        }
    }

    fn end(&self) {
        if let Some(work) = self.work.take() {
            match &work.bar {
                Some(bar) => bar.finish(),
                None if work.bytes > 0 => self.line(&work),
                None => {}
            }
        }
    }

    fn note(&self, text: &str) {
        match self.work.borrow().as_ref().and_then(|work| work.bar.as_ref()) {
            Some(bar) => bar.println(text),
            None if self.json => eprintln!("{}", serde_json::json!({ "note": text })),
            None => eprintln!("{text}"),
        }
    }
}
