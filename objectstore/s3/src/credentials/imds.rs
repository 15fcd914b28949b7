//! The instance's metadata service, version 2: a token is asked for with PUT and sent along with every question. Version 1
//! (without a token) is never spoken: it gives credentials to whoever can make the process fetch a URL.
#![expect(
    clippy::disallowed_types,
    reason = "lives in the tokio world; held for a moment, never while a token is fetched"
)]

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use hyper::Method;
use serde_json::Value;

use super::{Keys, Looked, Trouble};
use crate::{
    http::{Answer, Asker, NoAnswer, Question},
    surroundings::Surroundings,
};

const IPV4: &str = "http://169.254.169.254";
const IPV6: &str = "http://[fd00:ec2::254]";
/// The longest life that the service grants a token.
const TOKEN_TTL_S: i64 = 21_600;
/// Tokens are renewed so long before their end.
const TOKEN_AHEAD_S: i64 = 300;
const ROLES: &str = "latest/meta-data/iam/security-credentials/";

/// Client of the metadata service.
pub(crate) struct Imds {
    around: Surroundings,
    asker: Arc<Asker>,
    /// The token, and when (s) another is asked for.
    token: Mutex<Option<(String, i64)>>,
}

/// The token is not shown.
impl fmt::Debug for Imds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Imds")
    }
}

/// Why the service did not tell.
enum Silence {
    /// It is switched off, not there, or refuses tokens.
    Absent(String),
    Failed(String),
}

impl From<NoAnswer> for Silence {
    fn from(no: NoAnswer) -> Silence {
        match no {
            NoAnswer::Unreachable(why) => Silence::Absent(why),
            NoAnswer::Failed(why) => Silence::Failed(why),
        }
    }
}

impl Imds {
    pub(crate) fn new(around: Surroundings, asker: Arc<Asker>) -> Imds {
        Imds { around, asker, token: Mutex::new(None) }
    }

    /// The credentials of the instance's role.
    pub(super) async fn look(&self) -> Result<Looked, Trouble> {
        let absent = |silence| match silence {
            Silence::Absent(why) => Ok(Looked::Nothing(why)),
            Silence::Failed(why) => Err(Trouble::passing(why)),
        };
        let role = match self.get(ROLES).await {
            Ok(answer) if answer.status == 404 => {
                return Ok(Looked::Nothing("the instance has no role".to_owned()));
            }
            Ok(answer) => match name_in(&answer) {
                Some(role) => role,
                None => return Err(Trouble::passing(format!("no role's name, but HTTP {}", answer.status))),
            },
            Err(silence) => return absent(silence),
        };
        match self.get(&format!("{ROLES}{role}")).await {
            Ok(answer) => keys(&answer, &role).map(Looked::Found),
            Err(silence) => absent(silence),
        }
    }

    /// The region that the instance runs in.
    ///
    /// # Errors
    /// Why it is not known.
    pub(crate) async fn region(&self) -> Result<String, Trouble> {
        match self.get("latest/meta-data/placement/region").await {
            Ok(answer) => name_in(&answer).ok_or_else(|| Trouble::passing(format!("HTTP {}", answer.status))),
            Err(Silence::Absent(why)) => Err(Trouble::lasting(why)),
            Err(Silence::Failed(why)) => Err(Trouble::passing(why)),
        }
    }

    async fn get(&self, path: &str) -> Result<Answer, Silence> {
        if self.around.says_true("AWS_EC2_METADATA_DISABLED") {
            return Err(Silence::Absent("AWS_EC2_METADATA_DISABLED is set".to_owned()));
        }
        let endpoint = self.endpoint();
        for fresh in [false, true] {
            let token = self.token(&endpoint, fresh).await?;
            let question = Question::get(format!("{endpoint}/{path}")).with("x-aws-ec2-metadata-token", &token);
            let answer = self.asker.ask(&question).await?;
            match answer.status {
                // The token is not known there any more: once more with another.
                401 if !fresh => {}
                401 => return Err(Silence::Failed(format!("{endpoint} does not take its own token"))),
                429 | 500.. => return Err(Silence::Failed(format!("{endpoint} answered HTTP {}", answer.status))),
                _ => return Ok(answer),
            }
        }
        unreachable!("the second round returns")
    }

    fn endpoint(&self) -> String {
        let given = self.around.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let v6 = || {
            let mode = self.around.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
            mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"))
        };
        let endpoint = given.unwrap_or_else(|| if v6() { IPV6.to_owned() } else { IPV4.to_owned() });
        endpoint.trim_end_matches('/').to_owned()
    }

    /// The token at hand, or another one.
    async fn token(&self, endpoint: &str, fresh: bool) -> Result<String, Silence> {
        let now = self.around.now_s();
        let held = self.token.lock().expect("no panic while held").clone();
        match held {
            Some((token, until)) if !fresh && now < until => return Ok(token),
            _ => {}
        }
        let question = Question { method: Method::PUT, ..Question::get(format!("{endpoint}/latest/api/token")) }
            .with("x-aws-ec2-metadata-token-ttl-seconds", &TOKEN_TTL_S.to_string());
        let answer = self.asker.ask(&question).await?;
        match answer.status {
            200 => {}
            429 | 500.. => return Err(Silence::Failed(format!("{endpoint} answered HTTP {}", answer.status))),
            // Switched off for this instance, or too many hops away; never asked without a token instead.
            status => return Err(Silence::Absent(format!("{endpoint} gives no token: HTTP {status}"))),
        }
        let token = answer.text().map(str::trim).filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()));
        let token = token.ok_or_else(|| Silence::Failed(format!("{endpoint} gives an empty token")))?.to_owned();
        *self.token.lock().expect("no panic while held") = Some((token.clone(), now + TOKEN_TTL_S - TOKEN_AHEAD_S));
        Ok(token)
    }
}

/// The first line of a good answer, when it may be the name of a role or a region.
fn name_in(answer: &Answer) -> Option<String> {
    let name = answer.text()?.lines().next()?.trim();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    (answer.status == 200 && (1..=128).contains(&name.len()) && name.bytes().all(fits)).then(|| name.to_owned())
}

fn keys(answer: &Answer, role: &str) -> Result<Keys, Trouble> {
    let whose = format!("the metadata service, for role {role},");
    if answer.status != 200 {
        return Err(Trouble::passing(format!("{whose} answered HTTP {}", answer.status)));
    }
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match value.get("Code").and_then(Value::as_str) {
        None | Some("Success") => Keys::from_json(&value, &whose),
        Some(code) => {
            let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(100).collect();
            Err(Trouble::passing(format!("{whose} says {code}")))
        }
    }
}
