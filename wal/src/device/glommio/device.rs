//! The device port over a slice.

use std::{io, os::fd::AsRawFd, path::Path, rc::Rc};

use bytes::Bytes;
use glommio::io::DmaBuffer;

use super::{
    super::{Device, IoBuf, LocalBoxFuture, memory},
    buffers::{DmaRegion, Home},
    slice::{self, DeviceError, Slice, SliceOptions, WalSync},
};
use crate::format::BLOCK;

/// A slice on a disk. Exclusive while it lives: locked against other processes and other descriptors.
pub struct GlommioDevice {
    slice: Rc<Slice>,
    home: Home,
}

impl GlommioDevice {
    /// Makes the file of a slice: `len` bytes (whole blocks), allocated in full, its name durable. Blocks; for the start.
    ///
    /// # Errors
    /// [`DeviceError`]; then no file is left. A file that is there already is not touched.
    pub fn create_file(path: &Path, len: u64, options: SliceOptions) -> Result<(), DeviceError> {
        slice::create_file(path, len, options)
    }

    /// Opens a file or a raw block device and takes it exclusively. Blocks for a moment; for the start.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn open(path: &Path, options: SliceOptions) -> Result<GlommioDevice, DeviceError> {
        let slice = Slice::open(path, options).await?;
        Ok(GlommioDevice { slice: Rc::new(slice), home: Home::new() })
    }

    /// Opens for reading alone, and takes no lock, for `thalweg wal inspect`: every write fails.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn open_read_only(path: &Path) -> Result<GlommioDevice, DeviceError> {
        let slice = Slice::open_read_only(path).await?;
        Ok(GlommioDevice { slice: Rc::new(slice), home: Home::new() })
    }

    /// The flags of the open descriptor, as F_GETFL tells them.
    pub fn flags(&self) -> io::Result<i32> {
        slice::flags(self.slice.file().as_raw_fd())
    }
}

impl Device for GlommioDevice {
    fn len(&self) -> u64 {
        self.slice.len()
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        self.home.welcome();
        let buf = self.slice.file().alloc_dma_buffer(blocks as usize * BLOCK as usize);
        IoBuf::new(Box::new(DmaRegion::new(buf, &self.home)))
    }

    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        if let Err(e) = memory::aligned(at, b.len(), self.slice.len() as usize) {
            return Box::pin(std::future::ready((Err(e), b)));
        }
        let slice = self.slice.clone();
        let len = b.len();
        let region = DmaRegion::of(b, |len| slice.file().alloc_dma_buffer(len), &self.home);
        Box::pin(async move {
            let done = write_all(&slice, region.share(), at).await;
            (done, IoBuf::filled(Box::new(region), len))
        })
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        self.home.welcome();
        let (slice, home) = (self.slice.clone(), self.home.clone());
        Box::pin(async move {
            memory::range(at, len, slice.len() as usize)?;
            if len == 0 {
                return Ok(Bytes::new());
            }
            let read = slice.file().read_at(at, len).await?;
            if read.len() < len {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "short read from the WAL slice"));
            }
            Ok(home.freeze_read(read))
        })
    }

    fn wants_zeroing(&self) -> bool {
        self.slice.is_file()
    }
}

/// One write, whole, and durable when it returns `Ok`. A short write is an error: nothing is tried again.
async fn write_all(slice: &Slice, buf: Rc<DmaBuffer>, at: u64) -> io::Result<()> {
    let file = slice.file();
    let len = buf.len();
    let written = file.write_rc_at(buf, at).await?;
    if written != len {
        let why = format!("short write to the WAL slice: {written} of {len} bytes");
        return Err(io::Error::new(io::ErrorKind::WriteZero, why));
    }
    match slice.sync() {
        WalSync::Dsync => Ok(()),
        WalSync::Fdatasync => Ok(file.fdatasync().await?),
    }
}
