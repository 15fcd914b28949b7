//! What requests are signed with.

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Trouble;

/// An access key, and until when it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Its id, which is no secret.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The token of the session that it belongs to; a secret too.
    pub token: Option<String>,
    /// When it ends, in seconds since 1970; `None`: never.
    pub ends_at_s: Option<i64>,
}

/// Secrets are not shown.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, ends at {:?})", self.id, self.ends_at_s)
    }
}

impl Keys {
    /// Keys without an end.
    pub fn lasting(id: impl Into<String>, secret: impl Into<String>, token: Option<String>) -> Keys {
        Keys { id: id.into(), secret: secret.into(), token, ends_at_s: None }
    }

    /// Keys as services answer them: `AccessKeyId`, `SecretAccessKey`, `Token` or `SessionToken`, `Expiration`.
    ///
    /// # Errors
    /// What is missing, without any of what is there.
    pub(super) fn from_json(value: &Value, whose: &str) -> Result<Keys, Trouble> {
        let other = || Trouble::passing(format!("{whose} answered something other than credentials"));
        // What is there has to be text.
        let text = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(other()),
        };
        let (id, secret) = (text("AccessKeyId")?, text("SecretAccessKey")?);
        let (id, secret) = (id.ok_or_else(other)?, secret.ok_or_else(other)?);
        if id.is_empty() || secret.is_empty() {
            return Err(Trouble::passing(format!("{whose} answered credentials without a key")));
        }
        let token = text("Token")?.or(text("SessionToken")?);
        let end = text("Expiration")?.map(|text| text.parse::<DateTime<Utc>>().map_err(|_| other()));
        Ok(Keys { id, secret, token, ends_at_s: end.transpose()?.map(|at| at.timestamp()) })
    }
}
