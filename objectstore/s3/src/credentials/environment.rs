//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.

use super::{Keys, Looked, Trouble};
use crate::surroundings::Surroundings;

pub(super) fn look(around: &Surroundings) -> Result<Looked, Trouble> {
    let Some(key) = around.variable("AWS_ACCESS_KEY_ID") else {
        return Ok(Looked::Nothing("AWS_ACCESS_KEY_ID is not set".to_owned()));
    };
    let secret = around
        .variable("AWS_SECRET_ACCESS_KEY")
        .ok_or_else(|| Trouble::lasting("AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not"))?;
    Ok(Looked::Found(Keys::lasting(key, secret, around.variable("AWS_SESSION_TOKEN"))))
}
