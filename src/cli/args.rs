//! Arguments.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::{Config, Problems};

/// A Kafka-compatible broker whose storage is object storage.
#[derive(Parser, Debug)]
#[command(name = "thalweg", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// How to serve, without a command.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// What to do; without a command the broker serves with the default settings.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the broker until SIGTERM or Ctrl-C. This is also what `thalweg` without a command does.
    #[command(after_help = "Example:\n  thalweg serve --config /etc/thalweg.toml --set listeners=0.0.0.0:9092")]
    Serve(ServeArgs),
    /// Check the settings, and say what is wrong with them; start nothing.
    #[command(after_help = "Example:\n  thalweg check-config --config /etc/thalweg.toml")]
    CheckConfig(SettingsArgs),
    /// Print every setting's effective value and where it came from, in the form of a configuration file.
    #[command(after_help = "Example:\n  thalweg print-config --set log.retention.hours=24 | grep retention")]
    PrintConfig(SettingsArgs),
    /// Look into the write-ahead log, or save what an orphaned part of it holds.
    #[command(subcommand, after_help = "Example:\n  thalweg wal inspect thalweg-data/wal")]
    Wal(WalCommand),
    /// Make the metadata anew from the object store, or compare the two.
    #[command(subcommand, after_help = "Example:\n  thalweg metadata rebuild --config /etc/thalweg.toml")]
    Metadata(MetadataCommand),
    /// Look into the object store.
    #[command(
        subcommand,
        after_help = "Example:\n  thalweg object inspect file:///var/lib/thalweg/objects/data/3f/00000000000000a1-0001"
    )]
    Object(ObjectCommand),
}

/// What to do with the write-ahead log.
#[derive(Subcommand, Debug)]
pub enum WalCommand {
    /// Tell what a slice of the log holds, where it ends and whether it is damaged. Changes nothing.
    Inspect {
        /// A slice's file, or the directory that holds them.
        path: PathBuf,
        /// Tell it to a program: one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Upload and commit what a slice holds that no object has, while no broker runs on this metadata. The slice stays as it is.
    #[command(after_help = "Example:\n  thalweg wal drain /mnt/old-volume/wal --config /etc/thalweg.toml")]
    Drain {
        /// A slice's file, or the directory that holds them.
        path: PathBuf,
        /// Settings.
        #[command(flatten)]
        settings: SettingsArgs,
        /// Tell it to a program: one JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

/// What to do with the metadata.
#[derive(Subcommand, Debug)]
pub enum MetadataCommand {
    /// Make the metadata in `data.dir` from the newest snapshot in the object store and the objects after it. Deletes nothing.
    #[command(after_help = "Example:\n  thalweg metadata rebuild --config /etc/thalweg.toml")]
    Rebuild {
        /// Settings.
        #[command(flatten)]
        settings: SettingsArgs,
        /// Do so although there is metadata that can be read; it is moved aside.
        #[arg(long)]
        replace: bool,
        /// Do so although there is no snapshot: settings of topics, topics without objects, access rules and credentials are
        /// lost then.
        #[arg(long)]
        without_snapshot: bool,
        /// Tell it to a program: one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Check that every object that the newest snapshot, and the objects after it, lead to exists and is sound, and list those
    /// that nothing names. Changes nothing; a broker may run. Exit code 1 when something is wrong.
    #[command(after_help = "Example:\n  thalweg metadata verify --config /etc/thalweg.toml")]
    Verify {
        /// Settings.
        #[command(flatten)]
        settings: SettingsArgs,
        /// Check against the metadata in `data.dir`, whose broker is stopped, in place of the bucket's.
        #[arg(long)]
        local: bool,
        /// Tell it to a program: one JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

/// What to do with the object store.
#[derive(Subcommand, Debug)]
pub enum ObjectCommand {
    /// Tell which partitions, offsets and blocks an object holds. Changes nothing.
    Inspect {
        /// The object: the store's URL, then `/` and the object's key.
        url: String,
        /// Tell it to a program, as one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// How to serve.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Start although a part of the WAL is missing or damaged; the log says what is lost. Look first: `thalweg wal inspect`.
    #[arg(long)]
    pub accept_loss: bool,
}

/// Where settings come from.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// Configuration file; conf/thalweg.toml explains every setting. Without one the defaults hold.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A setting that goes before the file, such as num.partitions=4. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

impl SettingsArgs {
    /// Reads the settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, Problems> {
        Config::load(self.config.as_deref(), &self.sets)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Args::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example:\n  thalweg "), "{}", command.get_name());
        }
    }
}
