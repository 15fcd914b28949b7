//! Which figures of a run are shown, and how they are called. Pure.

use crate::figures::{Figures, GIB, Latency};

/// One figure as it is shown.
#[derive(Clone, PartialEq, Debug)]
pub struct Metric {
    /// What it is, with its unit.
    pub name: &'static str,
    /// How much.
    pub value: f64,
}

/// Everything that is shown of a run, in order.
pub fn metrics(figures: &Figures) -> Vec<Metric> {
    let mut shown = Vec::new();
    let mut show = |name, value: Option<f64>| shown.extend(value.map(|value| Metric { name, value }));
    let closed = figures.offered_bytes_per_s.is_none();
    let produced = figures.produced_bytes > 0;
    show("produced MB/s", (produced && closed).then(|| figures.produced_bytes_per_s() / 1e6));
    let consumed = figures.consumed_bytes > 0;
    show("consumed MB/s", (consumed && closed).then(|| figures.consumed_bytes_per_s() / 1e6));
    if let Some(latency) = figures.latency.as_ref().filter(|_| !closed && figures.end_to_end.is_none()) {
        show("p50 ms", Some(ms(latency, 0.5)));
        show("p99 ms", Some(ms(latency, 0.99)));
        show("p99.9 ms", Some(ms(latency, 0.999)));
    }
    if let Some(latency) = &figures.end_to_end {
        show("end to end p50 ms", Some(ms(latency, 0.5)));
        show("end to end p99 ms", Some(ms(latency, 0.99)));
    }
    if closed {
        show("CPU s/GiB produced", figures.cpu_produce_s.and_then(|cpu| per_gib(cpu, figures.produced_bytes)));
    } else {
        show("CPU, cores busy", Some(figures.cost.broker_cpu_s / figures.seconds));
    }
    show("CPU s/GiB consumed", figures.cpu_consume_s.and_then(|cpu| per_gib(cpu, figures.consumed_bytes)));
    if closed && figures.cpu_produce_s.is_none() && figures.cpu_consume_s.is_none() {
        let moved = figures.produced_bytes + figures.consumed_bytes;
        show("CPU s/GiB in and out", per_gib(figures.cost.broker_cpu_settled_s, moved));
    }
    show("resident MB", Some(figures.cost.resident_bytes as f64 / 1e6));
    shown
}

fn ms(latency: &Latency, q: f64) -> f64 {
    latency.quantile_us(q) as f64 / 1000.0
}

/// CPU seconds for each GiB; none of nothing.
pub fn per_gib(cpu_s: f64, bytes: u64) -> Option<f64> {
    (bytes > 0).then(|| cpu_s / (bytes as f64 / GIB))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Cost;

    fn names(figures: &Figures) -> Vec<&'static str> {
        metrics(figures).iter().map(|metric| metric.name).collect()
    }

    #[test]
    fn a_closed_load_shows_its_rate_and_an_open_one_its_latency() {
        let closed = Figures {
            seconds: 2.0,
            produced_bytes: 1 << 30,
            cpu_produce_s: Some(3.0),
            latency: Some(Latency::default()),
            ..Figures::default()
        };
        assert_eq!(names(&closed), ["produced MB/s", "CPU s/GiB produced", "resident MB"]);
        assert_eq!(metrics(&closed)[1].value, 3.0);
        let open = Figures { offered_bytes_per_s: Some(1.0), ..closed };
        assert_eq!(names(&open), ["p50 ms", "p99 ms", "p99.9 ms", "CPU, cores busy", "resident MB"]);
    }

    #[test]
    fn cpu_that_cannot_be_told_apart_is_shown_for_all_that_moved() {
        let both = Figures {
            seconds: 1.0,
            produced_bytes: 1 << 30,
            consumed_bytes: 3 << 30,
            cost: Cost { broker_cpu_settled_s: 8.0, ..Cost::default() },
            ..Figures::default()
        };
        let shown = metrics(&both);
        assert_eq!(shown[2], Metric { name: "CPU s/GiB in and out", value: 2.0 });
    }
}
