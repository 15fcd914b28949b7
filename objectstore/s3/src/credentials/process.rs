//! `credential_process` of a profile: a command of the user's that prints credentials as JSON, run as AWS's tools do.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::{Keys, Trouble};

/// It may ask somebody far away.
const LONGEST: Duration = Duration::from_secs(60);

/// The credentials that `command` of the profile `name` prints. Nothing of its output gets into an error.
pub(super) async fn run(command: &str, name: &str) -> Result<Keys, Trouble> {
    let whose = format!("credential_process of profile {name}");
    let failed = |_| Trouble::passing(format!("{whose} cannot be run"));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let late = |_| Trouble::passing(format!("{whose} takes longer than {} s", LONGEST.as_secs()));
    let output = timeout(LONGEST, shell.output()).await.map_err(late)?.map_err(failed)?;
    if !output.status.success() {
        return Err(Trouble::passing(format!("{whose} ended with {}", output.status)));
    }
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if value.get("Version").and_then(Value::as_i64) != Some(1) {
        return Err(Trouble::passing(format!("{whose} did not print credentials of version 1")));
    }
    Keys::from_json(&value, &whose)
}
