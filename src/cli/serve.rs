//! `thalweg serve`: logging, signals, the ready line, exit codes.
#![expect(clippy::disallowed_methods, reason = "owns the thread that waits for signals")]

use std::{
    io::{Write, stdout},
    process::ExitCode,
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};

use super::{EXIT_REFUSED, ServeArgs, abort_on_panic, set_up_logging};
use crate::broker::{self, Ports, Ready, StopSignal};

/// Runs the broker on `ports` to its end. Exit code 0 after a stop, 2 when it refuses to start, 1 when it could not go on.
pub fn serve(args: &ServeArgs, ports: &Ports) -> ExitCode {
    let config = match args.settings.load() {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(EXIT_REFUSED);
        }
    };
    set_up_logging(&config);
    abort_on_panic();
    let stop = match stop_on_signal() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("cannot listen for signals: {error}");
            return ExitCode::from(EXIT_REFUSED);
        }
    };
    match broker::serve(config, ports, args.accept_loss, &stop, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if error.after_start() { ExitCode::FAILURE } else { ExitCode::from(EXIT_REFUSED) }
        }
    }
}

/// The one line on stdout: scripts wait for it.
fn announce(ready: &Ready) {
    let kafka: Vec<String> = ready.kafka.iter().map(ToString::to_string).collect();
    let http = ready.http.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let (shards, start_ms) = (ready.shards, ready.start_ms);
    let mut out = stdout();
    // A closed stdout is no reason not to serve.
    let _unread = writeln!(out, "ready: kafka={} http={http} shards={shards} start_ms={start_ms}", kafka.join(","));
    let _unread = out.flush();
}

/// The first SIGTERM or SIGINT asks for a stop; the second ends the process at once, which loses nothing acknowledged.
fn stop_on_signal() -> std::io::Result<StopSignal> {
    let (tell, told) = flume::bounded(1);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for (n, signal) in signals.forever().enumerate() {
            if n > 0 {
                // SAFETY: _exit is always safe to call; nothing of ours needs to run any more.
                unsafe { libc::_exit(128 + signal) }
            }
            tracing::info!(
                signal = low_level::signal_name(signal),
                "stopping; a second signal ends the process at once"
            );
            let _stopped_already = tell.try_send(());
        }
    })?;
    Ok(told)
}
