//! How Thalweg is found and started.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Beside;

/// The broker's binary and its settings.
#[derive(Debug)]
pub(super) struct Binary {
    path: PathBuf,
    settings: Vec<String>,
}

impl Binary {
    /// A binary that is there.
    pub(super) fn at(path: &Path, settings: Vec<String>) -> Result<Binary, String> {
        if path.is_file() {
            Ok(Binary { path: path.into(), settings })
        } else {
            Err(format!("there is no {}", path.display()))
        }
    }

    /// `$THALWEG_BIN`, or what this workspace builds, which is built first if it is wanted.
    pub(super) fn find(settings: Vec<String>, wanted: bool) -> Result<Binary, String> {
        if let Some(path) = env::var_os("THALWEG_BIN") {
            return Ok(Binary { path: path.into(), settings });
        }
        let own = env::current_exe().map_err(|e| e.to_string())?;
        let path = own.with_file_name("thalweg");
        if wanted {
            build()?;
            if !path.exists() {
                return Err(format!("there is no {}: set THALWEG_BIN", path.display()));
            }
        }
        Ok(Binary { path, settings })
    }

    pub(super) fn settings(&self) -> &[String] {
        &self.settings
    }

    pub(super) fn version(&self) -> String {
        let said = Command::new(&self.path).arg("--version").output().map(|output| output.stdout);
        String::from_utf8_lossy(&said.unwrap_or_default()).trim().to_owned()
    }

    pub(super) fn command(&self, directory: &Path, [kafka, http]: [u16; 2], beside: &Beside) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("serve");
        let own = [
            format!("listeners=127.0.0.1:{kafka}"),
            format!("http.listen=127.0.0.1:{http}"),
            format!("data.dir={}", directory.join("data").display()),
            "log.level=warn".to_owned(),
        ];
        command.envs(beside.environment.iter().map(|(name, value)| (name, value)));
        for setting in own.iter().chain(&beside.settings).chain(&self.settings) {
            command.args(["--set", setting]);
        }
        command
    }
}

/// Builds the broker as it is released, unless this program is a debug build itself.
fn build() -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(super::repository()).args(["build", "--locked", "--bin", "thalweg"]).stdin(Stdio::null());
    if cfg!(debug_assertions) {
        eprintln!("warning: a debug build; its figures say nothing about speed");
    } else {
        command.arg("--release");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("the broker cannot be built: {other:?}")),
    }
}
