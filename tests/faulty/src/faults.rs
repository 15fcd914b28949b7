//! When a device fails, and how. Shared by all cores.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// One fault. Its number counts from 1, over all slices of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceFault {
    /// The write of a group fails with EIO; any part of it is on the disk. Later writes succeed.
    EioWrite(u64),
    /// The write of a superblock fails with EIO; any part of it is on the disk.
    EioSuperblock(u64),
    /// An fdatasync fails with EIO, and what it should have written is lost; the next one succeeds, as Linux has it.
    EioFlush(u64),
    /// A part of a group gets to the disk, and the power is gone.
    TornDeath(u64),
    /// One bit of a group's first batch flips, after the write returned `Ok`.
    FlipBit(u64),
    /// The device takes this long from a group's write on.
    Stall(u64, Duration),
}

impl FromStr for DeviceFault {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceFault, String> {
        let (name, when) = text.split_once('=').ok_or("expected NAME=N")?;
        let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        Ok(match name {
            "eio-write" => DeviceFault::EioWrite(number(when)?),
            "eio-superblock" => DeviceFault::EioSuperblock(number(when)?),
            "eio-flush" => DeviceFault::EioFlush(number(when)?),
            "torn-death" => DeviceFault::TornDeath(number(when)?),
            "flip-bit" => DeviceFault::FlipBit(number(when)?),
            "stall" => {
                let (n, seconds) = when.split_once(':').ok_or("expected stall=N:SECONDS")?;
                DeviceFault::Stall(number(n)?, Duration::from_secs(number(seconds)?))
            }
            other => return Err(format!("no fault is called {other}")),
        })
    }
}

/// A fault of the metadata's disk. Its number counts from 1, from the opening of the store on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataFault {
    /// A transaction fails with EIO; nothing of it is there. Later ones succeed.
    EioWrite(u64),
    /// A sync fails with EIO, and what it should have written is lost; the next one succeeds, as Linux has it.
    EioSync(u64),
}

impl FromStr for MetadataFault {
    type Err = String;

    fn from_str(text: &str) -> Result<MetadataFault, String> {
        let (name, when) = text.split_once('=').ok_or("expected NAME=N")?;
        let when = when.parse::<u64>().map_err(|e| format!("{when}: {e}"))?;
        match name {
            "eio-write" => Ok(MetadataFault::EioWrite(when)),
            "eio-sync" => Ok(MetadataFault::EioSync(when)),
            other => Err(format!("no fault of the metadata is called {other}")),
        }
    }
}

/// The faults to come, and how often what they wait for has happened.
pub struct Script {
    faults: Vec<DeviceFault>,
    groups: AtomicU64,
    superblocks: AtomicU64,
    flushes: AtomicU64,
}

impl Script {
    /// Nothing has happened yet.
    pub fn new(faults: Vec<DeviceFault>) -> Script {
        Script { faults, groups: AtomicU64::new(0), superblocks: AtomicU64::new(0), flushes: AtomicU64::new(0) }
    }

    /// A group with batches is to be written.
    pub fn group(&self) -> Option<DeviceFault> {
        use DeviceFault::{EioWrite, FlipBit, Stall, TornDeath};
        self.next(&self.groups, |fault| match fault {
            EioWrite(n) | TornDeath(n) | FlipBit(n) | Stall(n, _) => Some(n),
            _ => None,
        })
    }

    /// A superblock is to be written.
    pub fn superblock(&self) -> Option<DeviceFault> {
        self.next(&self.superblocks, |fault| if let DeviceFault::EioSuperblock(n) = fault { Some(n) } else { None })
    }

    /// An fdatasync is asked for.
    pub fn flush(&self) -> Option<DeviceFault> {
        self.next(&self.flushes, |fault| if let DeviceFault::EioFlush(n) = fault { Some(n) } else { None })
    }

    fn next(&self, counter: &AtomicU64, of_kind: impl Fn(DeviceFault) -> Option<u64>) -> Option<DeviceFault> {
        let now = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let due = self.faults.iter().find(|fault| of_kind(**fault) == Some(now)).copied();
        if let Some(fault) = due {
            eprintln!("a device fails: {fault:?}");
        }
        due
    }
}
