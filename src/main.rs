//! The `thalweg` binary: wiring only.

use std::{
    io::{self, stdout},
    process::ExitCode,
};

use clap::Parser;
use thalweg::{
    broker::Ports,
    cli::{self, Args, Command, EXIT_REFUSED, ObjectCommand, SettingsArgs, WalCommand},
    config::Config,
};

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command.unwrap_or(Command::Serve(args.serve)) {
        Command::Serve(args) => cli::serve(&args, &Ports::default()),
        Command::CheckConfig(settings) => show(&settings, |config| cli::check_config(config, &mut stdout())),
        Command::PrintConfig(settings) => show(&settings, |config| cli::print_config(config, &mut stdout())),
        Command::Wal(WalCommand::Inspect { path }) => told(cli::inspect_wal(&path, &mut stdout())),
        Command::Object(ObjectCommand::Inspect { url }) => told(cli::inspect_object(&url, &mut stdout())),
    }
}

/// The exit code of a command that tells something, or says why it cannot.
fn told(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
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
