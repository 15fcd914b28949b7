//! The `thalweg` binary: wiring only.

use std::{
    io::{self, stdout},
    process::ExitCode,
};

use clap::Parser;
use thalweg::{
    cli::{self, Args, Command, EXIT_REFUSED, SettingsArgs},
    config::Config,
};

fn main() -> ExitCode {
    match Args::parse().command {
        Command::CheckConfig(settings) => show(&settings, |config| cli::check_config(config, &mut stdout())),
        Command::PrintConfig(settings) => show(&settings, |config| cli::print_config(config, &mut stdout())),
    }
}

/// Reads the settings, or says what is wrong with them.
fn load(settings: &SettingsArgs) -> Result<Config, ExitCode> {
    settings.load().map_err(|problems| {
        eprintln!("{problems}");
        ExitCode::from(EXIT_REFUSED)
    })
}

fn show(settings: &SettingsArgs, print: impl FnOnce(&Config) -> io::Result<()>) -> ExitCode {
    match load(settings).map(|config| print(&config)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough (`| head`).
        Ok(Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(Err(e)) => {
            eprintln!("cannot write: {e}");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}
