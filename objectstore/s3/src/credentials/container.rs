//! The endpoint that ECS and EKS Pod Identity give a container: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` (on ECS's address)
//! or `AWS_CONTAINER_CREDENTIALS_FULL_URI`, with `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` or `..._TOKEN`.

use std::{net::IpAddr, path::Path};

use url::{Host, Url};

use super::{Keys, Looked, Trouble};
use crate::{
    http::{Asker, Question},
    surroundings::Surroundings,
};

const ECS: &str = "http://169.254.170.2";
/// Whom credentials may be asked of without TLS, besides this machine: ECS, and EKS's agent.
const TRUSTED: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

pub(super) async fn look(around: &Surroundings, asker: &Asker) -> Result<Looked, Trouble> {
    let Some(uri) = uri(around)? else {
        return Ok(Looked::Nothing(
            "neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set".to_owned(),
        ));
    };
    let mut question = Question::get(uri.clone());
    if let Some(token) = token(around)? {
        question = question.with("authorization", &token);
    }
    let answer = asker.ask(&question).await.map_err(|e| Trouble::passing(e.into_words()))?;
    if answer.status != 200 {
        let passing = answer.status == 429 || answer.status >= 500;
        return Err(Trouble { passing, why: format!("{uri} answered HTTP {}", answer.status) });
    }
    let value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Keys::from_json(&value, &uri).map(Looked::Found)
}

fn uri(around: &Surroundings) -> Result<Option<String>, Trouble> {
    if let Some(path) = around.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(Some(format!("{ECS}/{}", path.trim_start_matches('/'))));
    }
    let Some(uri) = around.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else { return Ok(None) };
    let name = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let parsed = Url::parse(&uri).map_err(|e| Trouble::lasting(format!("{name} is not a URL: {e}")))?;
    let address = match parsed.host() {
        Some(Host::Ipv4(v4)) => Some(IpAddr::V4(v4)),
        Some(Host::Ipv6(v6)) => Some(IpAddr::V6(v6)),
        _ => None,
    };
    let near = address.is_some_and(|a| a.is_loopback() || TRUSTED.contains(&a.to_string().as_str()))
        || parsed.host_str() == Some("localhost");
    match parsed.scheme() {
        "https" => Ok(Some(uri)),
        "http" if near => Ok(Some(uri)),
        _ => Err(Trouble::lasting(format!("{name} must be https://, or http:// on this machine, ECS or EKS"))),
    }
}

fn token(around: &Surroundings) -> Result<Option<String>, Trouble> {
    match around.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(file) => {
            around.read(Path::new(&file)).map(|token| Some(token.trim().to_owned())).map_err(Trouble::passing)
        }
        None => Ok(around.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri_of(name: &'static str, value: &'static str) -> Result<Option<String>, Trouble> {
        let set = move |asked: &str| (asked == name).then(|| value.to_owned());
        uri(&Surroundings::made_up(set, || std::time::SystemTime::UNIX_EPOCH))
    }

    #[test]
    fn credentials_are_asked_in_the_clear_of_neighbours_only() {
        let relative = uri_of("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x");
        assert_eq!(relative, Ok(Some("http://169.254.170.2/v2/credentials/x".to_owned())));
        for (full, taken) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://127.0.0.1:1/x", true),
            ("http://localhost/x", true),
            ("https://example.com/x", true),
            ("http://example.com/x", false),
            ("http://169.254.169.254/x", false),
            ("ftp://127.0.0.1/x", false),
            ("nothing", false),
        ] {
            assert_eq!(uri_of("AWS_CONTAINER_CREDENTIALS_FULL_URI", full).is_ok(), taken, "{full}");
        }
    }
}
