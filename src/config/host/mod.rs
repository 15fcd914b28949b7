//! Whether this machine can run what the settings ask for: looked at before anything is created.
//!
//! Every problem names the key to change or the command that mends it. Runs on the main thread, before any shard.

mod disk;
mod kernel;
mod network;

pub(crate) use disk::{object_dir, room, same_file_system};
pub(crate) use kernel::OWN_DESCRIPTORS;
pub(crate) use network::refusal;

use super::{
    load::Origin,
    problem::{Problem, Problems},
    table::Config,
};

/// Looks at the machine. Raises this process's soft limits (descriptors, locked memory) to the hard ones on the way.
///
/// Answers what is worth a warning in the log.
///
/// # Errors
/// Everything that stands in the way of a start.
pub fn check(config: &Config) -> Result<Vec<Problem>, Problems> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    kernel::check(config, &mut problems, &mut warnings);
    disk::check(config, &mut problems);
    network::check(config, &mut problems, &mut warnings);
    if problems.is_empty() { Ok(warnings) } else { Err(Problems(problems)) }
}

/// A problem of a setting's value on this machine.
fn of_setting(config: &Config, key: &str, text: String) -> Problem {
    let origin = config.entry(key).map_or(Origin::Default, |e| e.origin.clone());
    Problem { key: key.to_owned(), origin, text }
}

/// A problem of the machine, whatever the settings.
fn of_machine(what: &str, text: String) -> Problem {
    Problem { key: what.to_owned(), origin: Origin::Default, text }
}
