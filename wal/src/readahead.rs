//! Reads the ring forward with several large reads in flight.

use std::{collections::VecDeque, future::poll_fn, io, rc::Rc, task::Poll};

use bytes::{Bytes, BytesMut};

use crate::{Device, Lsn, Ring, device::LocalBoxFuture};

const FIRST_BYTES: u64 = 256 << 10;
const LARGEST_BYTES: u64 = 4 << 20;
const IN_FLIGHT: usize = 4;

enum Chunk {
    Pending(LocalBoxFuture<'static, io::Result<Bytes>>),
    Ready(io::Result<Bytes>),
}

/// A window over the ring that only moves forward. Reads grow from 256 KiB to 4 MiB, so that a short log opens fast.
pub(crate) struct Readahead {
    device: Rc<dyn Device>,
    ring: Ring,
    /// LSN of the next byte to ask for, and where to stop.
    next: u64,
    end: u64,
    size: u64,
    asked: VecDeque<(u64, Chunk)>,
    /// What was read and not passed yet: contiguous, ascending.
    read: VecDeque<(u64, Bytes)>,
}

impl Readahead {
    /// Reads from `from`, never more than once round the ring.
    pub(crate) fn new(device: Rc<dyn Device>, ring: Ring, from: Lsn) -> Readahead {
        let end = from.0 + ring.capacity_bytes();
        let (asked, read) = (VecDeque::new(), VecDeque::new());
        Readahead { device, ring, next: from.0, end, size: FIRST_BYTES, asked, read }
    }

    /// Where the window must end: once round the ring from where it began.
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.end)
    }

    /// The `len` bytes at `lsn`, which must not lie before an earlier call's and must not straddle the ring's end.
    /// What lies before is forgotten.
    pub(crate) async fn get(&mut self, lsn: Lsn, len: u64) -> io::Result<Bytes> {
        if lsn.0 + len > self.end || len > self.ring.until_end(lsn) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while self.read.front().is_some_and(|(start, bytes)| start + bytes.len() as u64 <= lsn.0) {
            self.read.pop_front();
        }
        while self.read.back().is_none_or(|(start, bytes)| start + (bytes.len() as u64) < lsn.0 + len) {
            self.ask();
            let (start, bytes) = self.receive().await?;
            if start + bytes.len() as u64 > lsn.0 {
                self.read.push_back((start, bytes));
            }
        }
        Ok(self.cut(lsn.0, len as usize))
    }

    fn cut(&self, lsn: u64, len: usize) -> Bytes {
        let (start, first) = self.read.front().expect("the range was read just before");
        let skip = (lsn - start) as usize;
        if skip + len <= first.len() {
            return first.slice(skip..skip + len);
        }
        let mut joined = BytesMut::with_capacity(len);
        joined.extend_from_slice(&first[skip..]);
        for (_, bytes) in self.read.iter().skip(1) {
            let left = len - joined.len();
            joined.extend_from_slice(&bytes[..left.min(bytes.len())]);
        }
        joined.freeze()
    }

    fn ask(&mut self) {
        while self.asked.len() < IN_FLIGHT && self.next < self.end {
            let until_end = self.ring.until_end(Lsn(self.next));
            let len = self.size.min(until_end).min(self.end - self.next);
            let read = self.device.read(self.ring.device_offset(Lsn(self.next)), len as usize);
            self.asked.push_back((self.next, Chunk::Pending(read)));
            self.next += len;
            self.size = (self.size * 2).min(LARGEST_BYTES);
        }
    }

    /// Drives all reads in flight until the first is done.
    async fn receive(&mut self) -> io::Result<(u64, Bytes)> {
        let asked = &mut self.asked;
        poll_fn(|cx| {
            for (_, chunk) in asked.iter_mut() {
                if let Chunk::Pending(read) = chunk {
                    if let Poll::Ready(done) = read.as_mut().poll(cx) {
                        *chunk = Chunk::Ready(done);
                    }
                }
            }
            match asked.front() {
                Some((_, Chunk::Pending(_))) => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
        match self.asked.pop_front() {
            Some((start, Chunk::Ready(done))) => done.map(|bytes| (start, bytes)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Waits for what is in flight: a read must not be dropped while the kernel has its buffer.
    pub(crate) async fn finish(mut self) {
        while !self.asked.is_empty() {
            // The bytes are not needed any more, so neither is an error.
            if self.receive().await.is_err() {
                continue;
            }
        }
    }
}
