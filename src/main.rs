//! The `thalweg` binary: wiring only.

use std::{
    io::{self, stdout},
    process::ExitCode,
};

use clap::Parser;
use thalweg::{
    broker::Ports,
    cli::{self, Args, Command, EXIT_REFUSED, MetadataCommand, ObjectCommand, SettingsArgs, WalCommand},
    config::Config,
};
use tikv_jemallocator::Jemalloc;

/// Buffers of many sizes that live for seconds, as thousands of partitions make them, leave glibc's heap in pieces (docs/performance.md).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    match args.command.unwrap_or(Command::Serve(args.serve)) {
        Command::Serve(args) => cli::serve(&args, &Ports::default()),
        Command::CheckConfig(settings) => show(&settings, |config| cli::check_config(config, &mut stdout())),
        Command::PrintConfig(settings) => show(&settings, |config| cli::print_config(config, &mut stdout())),
        Command::Wal(WalCommand::Inspect { path, json }) => told(cli::inspect_wal(&path, json, &mut stdout())),
        Command::Wal(WalCommand::Drain { path, settings, json }) => {
            done(&settings, |config| cli::drain_wal(config, &path, json, &mut stdout()).map(|()| true))
        }
        Command::Metadata(MetadataCommand::Rebuild { settings, replace, without_snapshot, json }) => {
            let rebuild = |config: Config| {
                cli::rebuild_metadata(&config, replace, without_snapshot, json, &mut stdout()).map(|()| true)
            };
            done(&settings, rebuild)
        }
        Command::Metadata(MetadataCommand::Verify { settings, local, json }) => {
            done(&settings, |config| cli::verify_metadata(&config, local, json, &mut stdout()))
        }
        Command::Object(ObjectCommand::Inspect { url, json }) => told(cli::inspect_object(&url, json, &mut stdout())),
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

/// The exit code of a command with settings: 0 when all is well, 1 when not, 2 when the settings are wrong.
fn done(settings: &SettingsArgs, run: impl FnOnce(Config) -> Result<bool, String>) -> ExitCode {
    let config = match load(settings) {
        Ok(config) => config,
        Err(code) => return code,
    };
    cli::set_up_logging(&config);
    match run(config) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => told(Err(why)),
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
