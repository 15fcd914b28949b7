//! The command line: what can be typed, and what each command but `serve` does.
//!
//! Commands run on the main thread, before any shard, or without one.

mod args;
mod logging;
mod metadata;
mod object;
mod progress;
mod serve;
mod settings;
mod wal;

pub use args::{Args, Command, MetadataCommand, ObjectCommand, ServeArgs, SettingsArgs, WalCommand};
pub use logging::{abort_on_panic, set_up_logging};
pub use metadata::{drain_wal, rebuild_metadata, verify_metadata};
pub use object::inspect_object;
pub use serve::serve;
pub use settings::{check_config, print_config};
pub use wal::inspect_wal;

/// Exit code of everything that is wrong before the broker serves: settings, machine, arguments.
pub const EXIT_REFUSED: u8 = 2;
