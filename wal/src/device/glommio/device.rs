//! The device port over a slice: what makes a write durable.

use std::{io, path::Path, rc::Rc};

use bytes::Bytes;

use super::{
    super::{Device, IoBuf, LocalBoxFuture, Medium},
    file::SliceFile,
    slice::{self, DeviceError, Slice, SliceOptions, WalSync},
};

/// A slice on a disk. Exclusive while it lives: locked against other processes and other descriptors.
pub struct GlommioDevice {
    medium: Rc<dyn Medium>,
    sync: WalSync,
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
        GlommioDevice::open_through(path, options, |file| file).await
    }

    /// As [`GlommioDevice::open`], with a layer between the device and its file: for tests of faults.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn open_through(
        path: &Path,
        options: SliceOptions,
        layer: impl FnOnce(Rc<dyn Medium>) -> Rc<dyn Medium>,
    ) -> Result<GlommioDevice, DeviceError> {
        let medium = layer(Rc::new(SliceFile::new(Slice::open(path, options).await?)));
        // What an owner that died has written may still be volatile. What recovery reads must not vanish later.
        medium.flush().await.map_err(slice::io_error("sync", path))?;
        Ok(GlommioDevice { medium, sync: options.sync })
    }

    /// Opens for reading alone, and takes no lock, for `thalweg wal inspect`: every write fails.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn open_read_only(path: &Path) -> Result<GlommioDevice, DeviceError> {
        let medium = Rc::new(SliceFile::new(Slice::open_read_only(path).await?));
        Ok(GlommioDevice { medium, sync: WalSync::Dsync })
    }

    /// The flags of the open descriptor, as F_GETFL tells them.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn flags(&self) -> io::Result<i32> {
        self.medium.flags()
    }
}

impl Device for GlommioDevice {
    fn len(&self) -> u64 {
        self.medium.len()
    }

    fn alloc(&self, blocks: u32) -> IoBuf {
        self.medium.alloc(blocks)
    }

    fn write(&self, at: u64, b: IoBuf) -> LocalBoxFuture<'static, (io::Result<()>, IoBuf)> {
        let write = self.medium.write(at, b);
        match self.sync {
            WalSync::Dsync => write,
            WalSync::Fdatasync => {
                let medium = self.medium.clone();
                Box::pin(async move {
                    match write.await {
                        (Ok(()), b) => (medium.flush().await, b),
                        failed => failed,
                    }
                })
            }
        }
    }

    fn read(&self, at: u64, len: usize) -> LocalBoxFuture<'static, io::Result<Bytes>> {
        self.medium.read(at, len)
    }

    fn wants_zeroing(&self) -> bool {
        self.medium.wants_zeroing()
    }
}
