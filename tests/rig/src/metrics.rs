//! `/metrics` as numbers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// One reading of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<(String, f64)>);

/// What `path` of the HTTP endpoint answers: status and body.
pub(crate) fn get(endpoint: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&endpoint, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned()))
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Metrics(lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, n)| (name.into(), number(n))).collect())
    }

    /// The sum of a metric over all its labels that contain `label` (all of them when it is empty); 0 when there is none.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of = |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.0.iter().filter(|(series, _)| of(series) && series.contains(label)).map(|(_, n)| n).sum()
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_label() {
        let metrics = Metrics::parse("# HELP a x\na{k=\"1\"} 2\na{k=\"2\"} 3\nab 7\nc 1.5\n");
        assert_eq!((metrics.sum("a", ""), metrics.sum("a", "k=\"2\""), metrics.sum("c", "")), (5.0, 3.0, 1.5));
        assert_eq!(metrics.sum("d", ""), 0.0);
    }
}
