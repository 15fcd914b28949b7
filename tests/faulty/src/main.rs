//! `thalweg serve`, on devices that lose at the process's death what was not durable: kill -9 becomes a loss of power.
//!
//! The start, the stop and everything between are the product's; only the ports differ ([`thalweg::broker::Ports`]). A write
//! that came through a descriptor without O_DSYNC (as F_GETFL tells, whatever the settings say) stays in this process's memory
//! until an fdatasync. What is written to the disk gets there in pieces, in any order, so that a kill tears it. The metadata
//! store keeps what it was not told to sync in memory too. On top of that, devices fail when told to.

mod failpoints;
mod faults;
mod medium;
mod metadata;
mod pages;

use std::{path::Path, process::ExitCode, sync::Arc};

use clap::Parser;
use thalweg::{
    broker::Ports,
    cli::{self, ServeArgs},
    cluster::store,
};

use self::{
    failpoints::Armed,
    faults::{DeviceFault, MetadataFault, Script},
    medium::FaultyDisk,
    metadata::VolatileStore,
};

/// The broker on faulty devices. Takes the arguments of `thalweg serve`, and faults.
#[derive(Parser)]
#[command(name = "thalweg-faulty")]
struct Args {
    /// How to serve.
    #[command(flatten)]
    serve: ServeArgs,
    /// A device fails at the N-th of its kind (over all slices): eio-write=N, eio-superblock=N, eio-flush=N, torn-death=N,
    /// flip-bit=N, stall=N:SECONDS. May be given several times.
    #[arg(long = "device-fault", value_name = "FAULT")]
    faults: Vec<DeviceFault>,
    /// What the process does when it passes a place in the code the N-th time: NAME=N:kill, NAME=N:panic, NAME=N:hang or NAME=N:lie. May be given
    /// several times. Needs the feature `failpoints`.
    #[arg(long = "failpoint", value_name = "FAILPOINT")]
    failpoints: Vec<Armed>,
    /// The disk of the metadata fails once with EIO, at the N-th transaction or sync: eio-write=N, eio-sync=N. May be given several times.
    #[arg(long = "metadata-fault", value_name = "FAULT")]
    metadata_faults: Vec<MetadataFault>,
    /// Open slices without O_DSYNC and believe that writes are durable all the same: what the crash test must notice.
    #[arg(long)]
    without_dsync: bool,
    /// Believe that the metadata is durable without a sync: what the crash test must notice.
    #[arg(long)]
    without_metadata_sync: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(why) = failpoints::arm(args.failpoints) {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    let forgets = args.without_metadata_sync;
    let faults = args.metadata_faults;
    let metadata = move |dir: &Path| Ok(VolatileStore::over(store::open_sled(dir)?, forgets, faults.clone()));
    let slices = FaultyDisk::new(Script::new(args.faults), args.without_dsync);
    cli::serve(&args.serve, &Ports { slices: Arc::new(slices), metadata: Arc::new(metadata), ..Ports::default() })
}
