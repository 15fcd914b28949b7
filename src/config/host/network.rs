//! Whether the listeners can be had, and who can reach them.

use std::io;

use super::{Problem, of_setting};
use crate::{
    config::{Config, Endpoint},
    net::claim,
};

/// Looks at the listeners; takes none of them.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    let kafka = config.listeners.iter().map(|e| ("listeners", e));
    for (key, endpoint) in kafka.chain(config.http_listen.iter().map(|e| ("http.listen", e))) {
        if let Err(error) = endpoint.resolve().and_then(claim) {
            problems.push(of_setting(config, key, refusal(endpoint, &error)));
        }
        if !endpoint.is_loopback() {
            let text = format!("{endpoint} can be reached from other machines, and asks nobody for a password");
            warnings.push(of_setting(config, key, text));
        }
    }
}

/// Why an endpoint cannot be listened on, and what mends it.
pub(crate) fn refusal(endpoint: &Endpoint, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{endpoint}: address in use by another process, maybe another broker (`ss -ltnp sport = :{}` names it)",
            endpoint.port
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{endpoint}: no such address on this machine (`ip addr` lists them)")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{endpoint}: ports below 1024 are for root: choose a higher one, or grant CAP_NET_BIND_SERVICE")
        }
        _ => format!("{endpoint}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn look(sets: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let config = Config::with(sets).expect("valid");
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        check(&config, &mut problems, &mut warnings);
        let show = |found: Vec<Problem>| found.iter().map(ToString::to_string).collect();
        (show(problems), show(warnings))
    }

    #[test]
    fn a_port_in_use_is_told_though_it_would_be_shared() {
        let first = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        first.set_reuse_port(true).expect("set");
        first.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        first.listen(1).expect("listening");
        let port = first.local_addr().expect("bound").as_socket().expect("IP").port();
        let endpoint = format!("127.0.0.1:{port}");
        let (problems, _) = look(&[("listeners", &endpoint), ("http.listen", "")]);
        assert_eq!(problems.len(), 1);
        let expected = format!("listeners (--set): {endpoint}: address in use");
        assert!(problems[0].starts_with(&expected), "{problems:?}");
    }

    #[test]
    fn free_ports_on_loopback_are_fine_and_stay_free() {
        let port = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port();
        let endpoint = format!("127.0.0.1:{port}");
        let (problems, warnings) = look(&[("listeners", &endpoint), ("http.listen", "127.0.0.1:0")]);
        assert!(problems.is_empty() && warnings.is_empty(), "{problems:?} {warnings:?}");
        TcpListener::bind(&endpoint).expect("given back");
    }

    #[test]
    fn a_listener_for_all_gets_a_warning() {
        let sets = [("listeners", ":0"), ("advertised.listeners", "broker:9092"), ("http.listen", "127.0.0.1:0")];
        let (problems, warnings) = look(&sets);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(warnings[0].contains("0.0.0.0:0 can be reached from other machines"), "{warnings:?}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let (problems, _) = look(&[("listeners", "192.0.2.1:9092"), ("http.listen", "")]);
        assert!(problems[0].contains("no such address on this machine"), "{problems:?}");
    }
}
