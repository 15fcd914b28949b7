//! The open file of a slice as a [`Medium`].

use std::{io, os::fd::AsRawFd, rc::Rc};

use bytes::Bytes;

use super::{
    super::{IoBuf, LocalBoxFuture, Medium, memory},
    buffers::{DmaRegion, Home},
    slice::{self, Slice},
};
use crate::format::BLOCK;

/// The file, and the home of its buffers.
pub(super) struct SliceFile {
    slice: Rc<Slice>,
    home: Home,
}

impl SliceFile {
    pub(super) fn new(slice: Slice) -> SliceFile {
        SliceFile { slice: Rc::new(slice), home: Home::new() }
    }
}

impl Medium for SliceFile {
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
            // A short write is an error: nothing is tried again.
            let done = match slice.file().write_rc_at(region.share(), at).await {
                Ok(written) if written != len => {
                    let why = format!("short write to the WAL slice: {written} of {len} bytes");
                    Err(io::Error::new(io::ErrorKind::WriteZero, why))
                }
                other => other.map(drop).map_err(io::Error::from),
            };
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

    fn flush(&self) -> LocalBoxFuture<'static, io::Result<()>> {
        let slice = self.slice.clone();
        Box::pin(async move { Ok(slice.file().fdatasync().await?) })
    }

    fn flags(&self) -> io::Result<i32> {
        slice::flags(self.slice.file().as_raw_fd())
    }

    fn wants_zeroing(&self) -> bool {
        self.slice.is_file()
    }
}
