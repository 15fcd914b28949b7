//! The layer between a slice's device and its file.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "asks for the identity of a file while the broker starts"
)]

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};
use thalweg::broker::OpenSlice;
use thalweg_record::{HEAD_LEN, Mono};
use thalweg_shards::runtime::Runtime;
use thalweg_wal::{
    Device, IoBuf,
    device::{DeviceError, GlommioDevice, LocalBoxFuture, Medium, SliceOptions, WalSync},
    format::{BLOCK, GROUP_HEADER_LEN, GroupHeader, GroupKind, SUPERBLOCKS},
};

use crate::{
    faults::{DeviceFault, Script},
    pages::{Pages, SharedPages},
};

/// What a torn write is torn into.
const SECTOR: usize = 512;
/// A write gets to the disk in at most this many pieces.
const PIECES: u64 = 4;

/// Opens slices on the disks of this machine, through a layer that loses and fails. Shared by all cores.
pub struct FaultyDisk {
    script: Arc<Script>,
    without_dsync: bool,
    /// By device and inode, for files are renamed.
    files: Mutex<BTreeMap<(u64, u64), SharedPages>>,
}

impl FaultyDisk {
    /// Nothing is open, nothing is volatile.
    pub fn new(script: Script, without_dsync: bool) -> FaultyDisk {
        FaultyDisk { script: Arc::new(script), without_dsync, files: Mutex::default() }
    }

    fn pages(&self, path: &Path) -> Result<SharedPages, DeviceError> {
        let unknown = |source| DeviceError::Io { what: "find", path: path.to_owned(), source };
        let found = std::fs::metadata(path).map_err(unknown)?;
        let mut files = self.files.lock().expect("nobody panics with the lock");
        Ok(files.entry((found.dev(), found.ino())).or_default().clone())
    }
}

impl OpenSlice for FaultyDisk {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        options: SliceOptions,
        runtime: &'a Rc<dyn Runtime>,
    ) -> LocalBoxFuture<'a, Result<Rc<dyn Device>, DeviceError>> {
        Box::pin(async move {
            let pages = self.pages(path)?;
            // Without O_DSYNC the slice opens as for fdatasync; of those only the one of the opening is honoured.
            let options =
                if self.without_dsync { SliceOptions { sync: WalSync::Fdatasync, ..options } } else { options };
            let flushes_left = Cell::new(if self.without_dsync { 1 } else { u64::MAX });
            let (script, runtime) = (self.script.clone(), runtime.clone());
            let layer = |file| {
                let stalled_until = Cell::new(Mono::default());
                Rc::new(FaultyMedium(Rc::new(Layer { file, pages, script, runtime, flushes_left, stalled_until }))) as _
            };
            Ok(Rc::new(GlommioDevice::open_through(path, options, layer).await?) as Rc<dyn Device>)
        })
    }
}

struct FaultyMedium(Rc<Layer>);

struct Layer {
    file: Rc<dyn Medium>,
    pages: SharedPages,
    script: Arc<Script>,
    runtime: Rc<dyn Runtime>,
    flushes_left: Cell<u64>,
    stalled_until: Cell<Mono>,
}

impl Medium for FaultyMedium {
    fn len(&self) -> u64 {
        self.0.file.len()
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        self.0.file.alloc(blocks)
    }

    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        let layer = self.0.clone();
        Box::pin(async move { (layer.write(at, b.as_ref()).await, b) })
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        let layer = self.0.clone();
        Box::pin(async move { layer.read(at, len).await })
    }

    fn flush(&self) -> LocalBoxFuture<'static, io::Result<()>> {
        let layer = self.0.clone();
        Box::pin(async move { layer.flush().await })
    }

    fn flags(&self) -> io::Result<i32> {
        self.0.file.flags()
    }

    fn wants_zeroing(&self) -> bool {
        self.0.file.wants_zeroing()
    }
}

impl Layer {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("nobody panics with the lock")
    }

    /// Whether the descriptor makes each write durable.
    fn writes_through(&self) -> io::Result<bool> {
        Ok(self.file.flags()? & libc::O_DSYNC == libc::O_DSYNC)
    }

    async fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = match GroupHeader::decode(bytes) {
            _ if at < SUPERBLOCKS * BLOCK => self.script.superblock(),
            Ok(group) if group.kind == GroupKind::Data => self.script.group(),
            _ => None,
        };
        if let Some(DeviceFault::Stall(_, time)) = fault {
            self.stalled_until.set(self.runtime.mono().plus(time));
        }
        self.runtime.sleep_until(self.stalled_until.get()).await;
        match fault {
            Some(DeviceFault::EioWrite(_) | DeviceFault::EioSuperblock(_)) => {
                self.keep_part(at, bytes).await?;
                Err(eio())
            }
            Some(DeviceFault::TornDeath(_)) => {
                self.keep_part(at, bytes).await?;
                die()
            }
            Some(DeviceFault::FlipBit(_)) => {
                self.put(at, bytes).await?;
                let mut first = bytes[..BLOCK as usize].to_vec();
                first[GROUP_HEADER_LEN + HEAD_LEN + 1] ^= 1;
                self.put(at, &first).await
            }
            _ => self.put(at, bytes).await,
        }
    }

    /// Takes a write as the descriptor's flags say.
    async fn put(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.writes_through()? {
            self.pages().put(at, bytes);
            return Ok(());
        }
        let mut pieces = self.pieces(bytes.len());
        while !pieces.is_empty() {
            let piece = pieces.swap_remove((self.runtime.random() % pieces.len() as u64) as usize);
            self.write_out(at + piece.start as u64, &bytes[piece]).await?;
        }
        Ok(())
    }

    /// Cuts whole blocks into whole blocks.
    fn pieces(&self, len: usize) -> Vec<std::ops::Range<usize>> {
        let blocks = len as u64 / BLOCK;
        let mut cuts: Vec<u64> = (1..PIECES).map(|_| self.runtime.random() % (blocks + 1)).collect();
        cuts.extend([0, blocks]);
        cuts.sort_unstable();
        cuts.windows(2)
            .filter(|cut| cut[0] < cut[1])
            .map(|cut| (cut[0] * BLOCK) as usize..(cut[1] * BLOCK) as usize)
            .collect()
    }

    async fn write_out(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buf = self.file.alloc((bytes.len() as u64 / BLOCK) as u32);
        buf.put(bytes);
        self.file.write(at, buf).await.0
    }

    /// Puts any sectors of a write on the disk, durably.
    async fn keep_part(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut mixed = self.read(at, bytes.len()).await?.to_vec();
        for (old, new) in mixed.chunks_mut(SECTOR).zip(bytes.chunks(SECTOR)) {
            if self.runtime.random() % 2 == 0 {
                old.copy_from_slice(new);
            }
        }
        self.write_out(at, &mixed).await?;
        self.file.flush().await
    }

    async fn read(&self, at: u64, len: usize) -> io::Result<Bytes> {
        let bytes = self.file.read(at, len).await?;
        if !self.pages().covers(at, len) {
            return Ok(bytes);
        }
        let mut bytes = BytesMut::from(&bytes[..]);
        self.pages().cover(at, &mut bytes);
        Ok(bytes.freeze())
    }

    async fn flush(&self) -> io::Result<()> {
        if self.flushes_left.get() == 0 {
            return Ok(());
        }
        self.flushes_left.set(self.flushes_left.get() - 1);
        while std::mem::replace(&mut self.pages().flushing, true) {
            self.runtime.breathe().await;
        }
        let done = self.flush_alone().await;
        self.pages().flushing = false;
        done
    }

    async fn flush_alone(&self) -> io::Result<()> {
        let (runs, upto) = self.pages().dirty();
        if self.script.flush().is_some() {
            self.pages().forget(upto);
            return Err(eio());
        }
        for run in runs {
            self.write_out(run.at, &run.bytes).await?;
        }
        self.file.flush().await?;
        self.pages().forget(upto);
        Ok(())
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// Ends the process as kill -9 does.
pub fn die() -> ! {
    // SAFETY: the signal ends this process; nothing runs afterwards.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!("SIGKILL cannot be caught")
}
