//! Addresses to listen on and to advertise.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
};

/// A host and a port, written `host:port`, `[v6]:port` or `PLAINTEXT://host:port`. An empty host is every interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Name or address; an IPv6 one without its brackets.
    pub host: String,
    /// Port; 0 lets the system choose, and what is advertised is then the port chosen.
    pub port: u16,
}

impl Endpoint {
    /// Reads one endpoint.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let address = match text.split_once("://") {
            None => text,
            Some((protocol, rest)) if protocol.eq_ignore_ascii_case("PLAINTEXT") => rest,
            Some((protocol, _)) => {
                return Err(format!("{text:?}: {protocol} listeners are not offered, only PLAINTEXT://host:port"));
            }
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port: write host:port"))?;
        let port = port.parse().map_err(|_| format!("{text:?}: {port:?} is not a port (0 to 65535)"))?;
        let host = match host.strip_prefix('[').map(|h| h.strip_suffix(']')) {
            Some(Some(v6)) => v6,
            Some(None) => return Err(format!("{text:?}: the bracket of the IPv6 address is not closed")),
            None if host.contains(':') => return Err(format!("{text:?}: put an IPv6 address in brackets")),
            None => host,
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:%".contains(&b);
        if host.len() > 253 || !host.bytes().all(fits) {
            return Err(format!("{text:?}: {host:?} is not a host name"));
        }
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        Ok(Endpoint { host: host.to_owned(), port })
    }

    /// The socket address, resolving a name (which blocks: only while starting).
    ///
    /// # Errors
    /// The resolver's, or that a name has no address.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        (self.host.as_str(), self.port)
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::other(format!("{} has no address", self.host)))
    }

    /// Whether the host stands for every interface, which no client can connect to.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// Whether listening here leaves `other` no room on the same port: this is every address of a family that `other` may have.
    /// `[::]` stands for both families.
    pub fn covers(&self, other: &Endpoint) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() => false,
            Ok(IpAddr::V4(_)) => !matches!(other.host.parse::<IpAddr>(), Ok(IpAddr::V6(six)) if !six.is_unspecified()),
            Ok(IpAddr::V6(_)) => true,
            Err(_) => false,
        }
    }

    /// Whether only this machine can connect: a loopback address, or `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|ip| match ip {
                IpAddr::V4(v4) => v4.is_loopback(),
                IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4: Ipv4Addr| v4.is_loopback()),
            })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_forms_are_read() {
        for (text, host, port) in [
            ("127.0.0.1:9092", "127.0.0.1", 9092),
            ("PLAINTEXT://broker-1.example:9093", "broker-1.example", 9093),
            ("plaintext://[::1]:9092", "::1", 9092),
            ("PLAINTEXT://:9092", "0.0.0.0", 9092),
            ("localhost:0", "localhost", 0),
        ] {
            assert_eq!(Endpoint::parse(text), Ok(Endpoint { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_bound_is_refused_with_a_reason() {
        for (text, reason) in [
            ("127.0.0.1", "no port"),
            ("h:70000", "not a port"),
            ("SSL://h:9093", "only PLAINTEXT"),
            ("::1:9092", "brackets"),
            ("[::1:9092", "not closed"),
            ("a b:1", "host name"),
        ] {
            let err = Endpoint::parse(text).expect_err(text);
            assert!(err.contains(reason), "{text}: {err}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        let is = |t: &str| Endpoint::parse(t).expect("valid").is_loopback();
        assert!(is("localhost:1") && is("127.8.0.1:1") && is("[::1]:1"));
        assert!(!is(":1") && !is("10.0.0.1:1") && !is("[::]:1") && !is("broker:1"));
        assert_eq!(Endpoint::parse("[::1]:5").expect("valid").to_string(), "[::1]:5");
    }

    #[test]
    fn every_address_covers_those_of_its_family() {
        let covers = |this: &str, other: &str| {
            let parse = |text| Endpoint::parse(text).expect("valid");
            parse(this).covers(&parse(other))
        };
        assert!(covers("0.0.0.0:9092", "127.0.0.1:9092"));
        assert!(covers("0.0.0.0:9092", "localhost:9092"));
        assert!(covers("0.0.0.0:9092", "[::]:9092"));
        assert!(!covers("0.0.0.0:9092", "[::1]:9092"));
        assert!(covers("[::]:9092", "127.0.0.1:9092"));
        assert!(!covers("127.0.0.1:9092", "0.0.0.0:9092"));
    }
}
