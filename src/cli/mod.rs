//! The command line: what can be typed, and what each command but `serve` does.
//!
//! Commands run on the main thread, before any shard, or without one.

mod args;
mod logging;
mod settings;

pub use args::{Args, Command, SettingsArgs};
pub use logging::{abort_on_panic, set_up_logging};
pub use settings::{check_config, print_config};

/// Exit code of everything that is wrong before the broker serves: settings, machine, arguments.
pub const EXIT_REFUSED: u8 = 2;
