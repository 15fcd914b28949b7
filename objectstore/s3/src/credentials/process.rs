//! `credential_process` of a profile: a command of the user's that prints credentials as JSON, run as AWS's tools do.

use std::{io, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

use super::{Keys, Trouble};

/// It may ask somebody far away.
const LONGEST: Duration = Duration::from_secs(60);
/// Far more than credentials have.
const LARGEST_OUTPUT: u64 = 64 << 10;

/// The credentials that `command` of the profile `name` prints. Nothing of its output gets into an error.
///
/// The command is split into words by a shell's rules for quotes, and run without a shell.
pub(super) async fn run(command: &str, name: &str) -> Result<Keys, Trouble> {
    let whose = format!("credential_process of profile {name}");
    let Some((program, rest)) = shlex::split(command).and_then(|mut words| {
        let rest = words.split_off(words.len().min(1));
        Some((words.pop()?, rest))
    }) else {
        return Err(Trouble::lasting(format!("{whose} is no command")));
    };
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let late = |_| Trouble::passing(format!("{whose} takes longer than {} s", LONGEST.as_secs()));
    let failed = |_| Trouble::passing(format!("{whose} cannot be run"));
    let (status, output) = timeout(LONGEST, output(command)).await.map_err(late)?.map_err(failed)?;
    if !status.success() {
        return Err(Trouble::passing(format!("{whose} ended with {status}")));
    }
    let value: Value = serde_json::from_slice(&output).unwrap_or_default();
    if value.get("Version").and_then(Value::as_i64) != Some(1) {
        return Err(Trouble::passing(format!("{whose} did not print credentials of version 1")));
    }
    Keys::from_json(&value, &whose)
}

/// How it ended, and what it printed. Who prints more than credentials finds nobody reading.
async fn output(mut command: Command) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let mut child = command.spawn()?;
    let mut printed = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(LARGEST_OUTPUT).read_to_end(&mut printed).await?;
    }
    Ok((child.wait().await?, printed))
}
