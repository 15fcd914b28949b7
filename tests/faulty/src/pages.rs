//! What was written to a file and is not durable yet: gone with the process.
#![expect(clippy::disallowed_types, reason = "for cores that open one file one after the other: nobody waits for it")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use thalweg_wal::format::BLOCK;

/// One file's, for the cores that open it one after the other.
pub type SharedPages = Arc<Mutex<Pages>>;

/// Volatile blocks of one file, by number. They outlive the descriptor that wrote them, as the kernel's page cache does.
#[derive(Default)]
pub struct Pages {
    blocks: BTreeMap<u64, Page>,
    written: u64,
    /// An fdatasync is under way; the next one waits, or an older block could overwrite a newer one.
    pub flushing: bool,
}

struct Page {
    bytes: Vec<u8>,
    /// Which write it is of.
    version: u64,
}

/// Blocks in a row, to be written out.
pub struct Run {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Pages {
    /// Takes a write of whole blocks.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.written += 1;
        for (n, block) in bytes.chunks(BLOCK as usize).enumerate() {
            self.blocks.insert(at / BLOCK + n as u64, Page { bytes: block.to_vec(), version: self.written });
        }
    }

    /// Lays what is volatile over `bytes`, which were read at `at`.
    pub fn cover(&self, at: u64, bytes: &mut [u8]) {
        let end = at + bytes.len() as u64;
        for (number, page) in self.blocks.range(at / BLOCK..end.div_ceil(BLOCK)) {
            let start = number * BLOCK;
            let (from, to) = (start.max(at), (start + BLOCK).min(end));
            bytes[(from - at) as usize..(to - at) as usize]
                .copy_from_slice(&page.bytes[(from - start) as usize..(to - start) as usize]);
        }
    }

    /// Whether anything of `len` bytes at `at` is volatile.
    pub fn covers(&self, at: u64, len: usize) -> bool {
        self.blocks.range(at / BLOCK..(at + len as u64).div_ceil(BLOCK)).next().is_some()
    }

    /// Everything volatile, and the write that it reaches to.
    pub fn dirty(&self) -> (Vec<Run>, u64) {
        let mut runs: Vec<Run> = Vec::new();
        for (number, page) in &self.blocks {
            let at = number * BLOCK;
            match runs.last_mut().filter(|run| run.at + run.bytes.len() as u64 == at) {
                Some(run) => run.bytes.extend_from_slice(&page.bytes),
                None => runs.push(Run { at, bytes: page.bytes.clone() }),
            }
        }
        (runs, self.written)
    }

    /// Everything up to this write is on the disk, or lost.
    pub fn forget(&mut self, upto: u64) {
        self.blocks.retain(|_, page| page.version > upto);
    }
}
