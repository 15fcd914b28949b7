//! Log lines on stderr, and what a panic does.
#![expect(clippy::disallowed_methods, reason = "set up before any shard runs; a panic ends the process")]

use std::{
    backtrace::Backtrace,
    io::{IsTerminal, stderr},
    panic, process,
};

use tracing_subscriber::EnvFilter;

use crate::{
    cluster::store::opening,
    config::{Config, LogFormat},
    net::decoding,
};

/// Starts writing log lines to stderr, as `log.format` and `log.level` (or RUST_LOG) say. Once in a process.
pub fn set_up_logging(config: &Config) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&config.log_level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match config.log_format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// A panic ends the process at once: a thread that is gone, or a task that the runtime swallowed, must not leave half a
/// broker behind. Only inside the decode guard it costs just the connection,
/// and while the metadata is opened it is sled's way to say that its files are damaged.
pub fn abort_on_panic() {
    panic::set_hook(Box::new(|info| {
        if decoding() {
            tracing::debug!(%info, "a request made the decoder panic");
            return;
        }
        if opening() {
            tracing::debug!(%info, "the metadata store made sled panic");
            return;
        }
        let backtrace = Backtrace::force_capture();
        tracing::error!(%info, %backtrace, "panic: the broker stops at once; this is a fault in it");
        process::abort();
    }));
}
