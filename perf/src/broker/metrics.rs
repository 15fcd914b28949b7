//! What Thalweg tells of itself: its metrics, in Prometheus' text.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// One series.
#[derive(Clone, PartialEq, Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// All series at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Metrics(Vec<Series>);

/// A histogram: of each bucket its upper bound and how many values lie in it alone, ascending; the last has no bound.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Buckets(pub Vec<(Option<f64>, f64)>);

impl Metrics {
    /// Asks `address` for them.
    ///
    /// # Errors
    /// When it does not answer with metrics.
    pub fn read(address: &str) -> Result<Metrics, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|e| format!("no metrics from {address}: {e}"))?;
        if !answer.starts_with("HTTP/1.1 200") {
            let first = answer.lines().next().unwrap_or_default();
            return Err(format!("no metrics from {address}: {first}"));
        }
        Ok(Metrics::parse(&answer))
    }

    /// Lines that are no series (comments, heads, lengths of chunks) are passed over.
    fn parse(text: &str) -> Metrics {
        Metrics(text.lines().filter_map(Series::parse).collect())
    }

    fn of<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Series> {
        let has = |series: &Series| labels.iter().all(|(label, value)| series.label(label) == Some(*value));
        self.0.iter().filter(move |series| series.name == name && has(series))
    }

    /// The sum of all series of that name with these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|series| series.value).sum()
    }

    /// What was added to [`Metrics::sum`] since.
    pub fn since(&self, earlier: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels) - earlier.sum(name, labels)
    }

    /// The histogram of that name with these labels, all series together, as far as it was filled since.
    pub fn buckets_since(&self, earlier: &Metrics, name: &str, labels: &[(&str, &str)]) -> Buckets {
        let name = format!("{name}_bucket");
        let mut bounds: Vec<&str> = Vec::new();
        for bound in self.of(&name, labels).filter_map(|series| series.label("le")) {
            if !bounds.contains(&bound) {
                bounds.push(bound);
            }
        }
        let upper = |bound: &str| bound.parse::<f64>().ok().filter(|upper| upper.is_finite());
        bounds.sort_by(|a, b| upper(a).unwrap_or(f64::MAX).total_cmp(&upper(b).unwrap_or(f64::MAX)));
        let mut below = 0.0;
        let counts = bounds.iter().map(|bound| {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", *bound)]).collect();
            // Buckets count all that lie below their bound.
            let all = self.since(earlier, &name, &labels);
            let own = all - below;
            below = all;
            (upper(bound), own)
        });
        Buckets(counts.collect())
    }
}

impl Buckets {
    /// Where the share `q` (0 to 1) lies, taken to be spread evenly within its bucket; none of nothing. What lies beyond the
    /// last bound is taken to lie at it.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let all: f64 = self.0.iter().map(|(_, count)| count).sum();
        let (mut seen, mut lower) = (0.0, 0.0);
        for (upper, count) in self.0.iter().filter(|_| all > 0.0) {
            if *count > 0.0 && seen + count >= q * all {
                return Some(upper.map_or(lower, |upper| lower + (upper - lower) * (q * all - seen).max(0.0) / count));
            }
            seen += count;
            lower = upper.unwrap_or(lower);
        }
        None
    }
}

impl Series {
    fn parse(line: &str) -> Option<Series> {
        if line.starts_with('#') {
            return None;
        }
        let (series, value) = line.trim().rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}');
        // Values of labels are names and numbers here, which hold neither a quote nor a comma.
        let label = |label: &str| {
            let (name, value) = label.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        };
        let labels = labels.split(',').filter_map(label).collect();
        name.starts_with("thalweg_").then(|| Series { name: name.to_owned(), labels, value })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "HTTP/1.1 200 OK\r\n\r\n3f2\r\n# TYPE thalweg_x_seconds histogram\n\
        thalweg_x_seconds_bucket{shard=\"0\",le=\"0.001\"} 1\nthalweg_x_seconds_bucket{shard=\"0\",le=\"+Inf\"} 1\n\
        thalweg_reads_total{shard=\"0\",tier=\"tail\"} 5\n";
    const LATER: &str = "thalweg_x_seconds_bucket{shard=\"0\",le=\"0.001\"} 51\n\
        thalweg_x_seconds_bucket{shard=\"0\",le=\"0.01\"} 91\nthalweg_x_seconds_bucket{shard=\"0\",le=\"+Inf\"} 101\n\
        thalweg_x_seconds_bucket{shard=\"1\",le=\"0.001\"} 0\nthalweg_x_seconds_bucket{shard=\"1\",le=\"0.01\"} 0\n\
        thalweg_x_seconds_bucket{shard=\"1\",le=\"+Inf\"} 0\n\
        thalweg_reads_total{shard=\"0\",tier=\"tail\"} 7\nthalweg_reads_total{shard=\"1\",tier=\"object\"} 2.5\n";

    #[test]
    fn series_are_summed_by_their_labels() {
        let (earlier, later) = (Metrics::parse(EARLIER), Metrics::parse(LATER));
        assert_eq!(later.sum("thalweg_reads_total", &[]), 9.5);
        assert_eq!(later.sum("thalweg_reads_total", &[("tier", "object")]), 2.5);
        assert_eq!(later.since(&earlier, "thalweg_reads_total", &[("tier", "tail")]), 2.0);
        assert_eq!(later.sum("thalweg_none", &[]), 0.0);
    }

    #[test]
    fn a_histogram_is_what_was_added_of_all_shards() {
        let (earlier, later) = (Metrics::parse(EARLIER), Metrics::parse(LATER));
        let buckets = later.buckets_since(&earlier, "thalweg_x_seconds", &[]);
        assert_eq!(buckets, Buckets(vec![(Some(0.001), 50.0), (Some(0.01), 41.0), (None, 9.0)]));
        assert_eq!(buckets.quantile(0.25), Some(0.0005));
        assert_eq!(buckets.quantile(0.5), Some(0.001));
        assert_eq!(buckets.quantile(0.99), Some(0.01), "beyond the last bound");
        assert_eq!(Buckets::default().quantile(0.5), None);
    }
}
