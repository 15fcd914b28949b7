//! Frames: a 4-byte big-endian length and that many bytes.
//!
//! A length is checked before anything is allocated for it. A connection that waits for its next frame holds no chunk.
//! Frames over 64 KiB are read exactly, with the next length in the same receive, so that nothing of the next frame has
//! to be moved; smaller ones come several per receive.

use std::{io, pin::Pin, task::Poll};

use bytes::Bytes;
use futures_lite::AsyncRead;

use super::chunk::{CHUNK_LEN, Chunk, ChunkPool};

/// Bytes of a frame's length.
pub const LENGTH_LEN: usize = 4;
/// Shortest request: key, version and correlation id.
const SHORTEST: i32 = 8;

/// Why no frame can be had.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length cannot be, or is above `socket.request.max.bytes`.
    #[error("frame length {0} is outside 8..={1}")]
    Length(i32, u32),
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame")]
    Truncated,
    /// The stream failed.
    #[error("read failed: {0}")]
    Io(#[from] io::Error),
}

/// Cuts frames off a stream.
pub struct FrameReader<R> {
    reader: R,
    pool: ChunkPool,
    max_bytes: u32,
    ready: Bytes,
    ready_chunk_len: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames of at most `max_bytes` from `reader`.
    pub fn new(reader: R, pool: ChunkPool, max_bytes: u32) -> FrameReader<R> {
        FrameReader { reader, pool, max_bytes, ready: Bytes::new(), ready_chunk_len: 0 }
    }

    /// Waits for the length of the next frame, and leaves it in the stream; `None` when the stream ends before it.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub async fn length(&mut self) -> Result<Option<usize>, FrameError> {
        if self.ready.len() < LENGTH_LEN {
            let Some(mut chunk) = self.first_bytes().await? else {
                return if self.ready.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            };
            while chunk.len() < LENGTH_LEN {
                self.fill(&mut chunk, CHUNK_LEN).await?;
            }
            self.freeze(chunk);
        }
        let mut raw = [0; LENGTH_LEN];
        raw.copy_from_slice(&self.ready[..LENGTH_LEN]);
        let length = i32::from_be_bytes(raw);
        if length < SHORTEST || length as u32 > self.max_bytes {
            return Err(FrameError::Length(length, self.max_bytes));
        }
        Ok(Some(length as usize))
    }

    /// Waits for the frame whose `length` was just told, and takes it off.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub async fn body(&mut self, length: usize) -> Result<Bytes, FrameError> {
        let total = LENGTH_LEN + length;
        if self.ready.len() < total {
            let limit = if total <= CHUNK_LEN { CHUNK_LEN } else { total + LENGTH_LEN };
            let mut chunk = self.pool.take(limit);
            chunk.extend(&self.ready);
            self.ready = Bytes::new();
            while chunk.len() < total {
                self.fill(&mut chunk, limit).await?;
            }
            self.freeze(chunk);
        }
        let body = self.ready.split_to(total).slice(LENGTH_LEN..);
        // A small body must not keep a large chunk from its pool.
        if body.len() < self.ready_chunk_len / 4 { Ok(Bytes::copy_from_slice(&body)) } else { Ok(body) }
    }

    fn freeze(&mut self, chunk: Chunk) {
        self.ready_chunk_len = chunk.as_ref().len();
        self.ready = chunk.freeze();
    }

    /// A chunk that begins with what is left over, as soon as the stream has more; `None` at its end.
    async fn first_bytes(&mut self) -> Result<Option<Chunk>, FrameError> {
        std::future::poll_fn(|cx| {
            let mut chunk = self.pool.take(CHUNK_LEN);
            chunk.extend(&self.ready);
            match Pin::new(&mut self.reader).poll_read(cx, chunk.room(CHUNK_LEN)) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(FrameError::Io(error))),
                Poll::Ready(Ok(0)) => Poll::Ready(Ok(None)),
                Poll::Ready(Ok(count)) => {
                    chunk.advance(count);
                    Poll::Ready(Ok(Some(chunk)))
                }
            }
        })
        .await
    }

    async fn fill(&mut self, chunk: &mut Chunk, limit: usize) -> Result<(), FrameError> {
        let read = std::future::poll_fn(|cx| Pin::new(&mut self.reader).poll_read(cx, chunk.room(limit))).await?;
        if read == 0 {
            return Err(FrameError::Truncated);
        }
        chunk.advance(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_lite::future::block_on;
    use proptest::prelude::*;

    use super::*;

    /// Hands out its bytes in steps of the given sizes, over and over.
    struct Steps {
        bytes: Vec<u8>,
        at: usize,
        steps: Vec<usize>,
        turn: usize,
    }

    impl AsyncRead for Steps {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let this = &mut *self;
            let step = this.steps[this.turn % this.steps.len()];
            this.turn += 1;
            if step == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let count = step.min(buf.len()).min(this.bytes.len() - this.at);
            buf[..count].copy_from_slice(&this.bytes[this.at..this.at + count]);
            this.at += count;
            Poll::Ready(Ok(count))
        }
    }

    fn reader(bytes: Vec<u8>, steps: Vec<usize>) -> FrameReader<Steps> {
        FrameReader::new(Steps { bytes, at: 0, steps, turn: 0 }, ChunkPool::default(), 1 << 20)
    }

    fn wire(lengths: &[usize]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (at, length) in lengths.iter().enumerate() {
            wire.extend((*length as i32).to_be_bytes());
            wire.extend((0..*length).map(|i| (i + at) as u8));
        }
        wire
    }

    async fn next<R: AsyncRead + Unpin>(frames: &mut FrameReader<R>) -> Result<Option<Bytes>, FrameError> {
        match frames.length().await? {
            Some(length) => frames.body(length).await.map(Some),
            None => Ok(None),
        }
    }

    proptest! {
        #[test]
        fn frames_come_whole_and_in_order_however_they_arrive(
            lengths in proptest::collection::vec(prop_oneof![8usize..200, 10_000usize..70_000, 60_000usize..200_000], 1..12),
            steps in proptest::collection::vec(prop_oneof![Just(0usize), 1usize..9, 1000usize..300_000], 1..6),
        ) {
            prop_assume!(steps.iter().any(|step| *step > 999) && steps.len() > 1);
            let mut frames = reader(wire(&lengths), steps);
            block_on(async {
                for (at, length) in lengths.iter().enumerate() {
                    let frame = next(&mut frames).await.expect("a whole stream").expect("another frame");
                    let expected: Vec<u8> = (0..*length).map(|i| (i + at) as u8).collect();
                    assert!(frame == expected, "frame {at} of {length} bytes differs");
                }
                assert!(next(&mut frames).await.expect("a clean end").is_none());
            });
        }
    }

    #[test]
    fn lengths_that_cannot_be_cost_nothing() {
        for length in [i32::MIN, -1, 0, 7, (1 << 20) + 1, i32::MAX] {
            let mut frames = reader(length.to_be_bytes().to_vec(), vec![100]);
            assert!(matches!(block_on(frames.length()), Err(FrameError::Length(found, _)) if found == length));
        }
    }

    #[test]
    fn a_cut_stream_is_truncated() {
        let whole = wire(&[20, 100_000]);
        for cut in [1, 3, 4, 23, 25, 27, 28, 5000, whole.len() - 1] {
            let mut frames = reader(whole[..cut].to_vec(), vec![1 << 20]);
            let outcome = block_on(async {
                while next(&mut frames).await?.is_some() {}
                Ok::<_, FrameError>(())
            });
            assert!(matches!(outcome, Err(FrameError::Truncated)), "cut at {cut}");
        }
    }

    #[test]
    fn a_small_frame_does_not_pin_its_chunk() {
        let pool = ChunkPool::default();
        let stream = Steps { bytes: wire(&[100]), at: 0, steps: vec![1 << 20], turn: 0 };
        let mut frames = FrameReader::new(stream, pool.clone(), 1 << 20);
        let small = block_on(next(&mut frames)).expect("whole").expect("a frame");
        drop(frames);
        assert_eq!((small.len(), pool.free_bytes()), (100, CHUNK_LEN));
    }
}
