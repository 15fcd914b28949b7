//! Frames: a 4-byte big-endian length and that many bytes.
//!
//! A length is checked before anything is allocated for it. A connection that waits holds no chunk, only the bytes that
//! came. Frames over 64 KiB are read exactly, with the next length in the same receive, so that nothing of the next frame
//! has to be moved; smaller ones come several per receive.

use std::{io, pin::Pin, rc::Rc, task::Poll};

use bytes::Bytes;
use futures_lite::AsyncRead;

use super::{
    chunk::{CHUNK_LEN, Chunk, ChunkPool},
    flow::Flow,
};

/// Bytes of a frame's length.
pub const LENGTH_LEN: usize = 4;
/// Shortest request: key, version and correlation id.
const SHORTEST: i32 = 8;
/// What a request takes beside its bytes.
const REQUEST_OVERHEAD: usize = 512;

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

/// Whether a frame gets a chunk of its own.
pub fn is_large(length: usize) -> bool {
    LENGTH_LEN + length > CHUNK_LEN
}

/// Memory that a frame takes: its own when it is small and copied, else the chunk that it lies in.
pub fn footprint(length: usize) -> usize {
    match length {
        _ if is_large(length) => Chunk::len_for(LENGTH_LEN + length),
        _ if length >= CHUNK_LEN / 4 => CHUNK_LEN,
        _ => length + REQUEST_OVERHEAD,
    }
}

/// Cuts frames off a stream.
pub struct FrameReader<R> {
    reader: R,
    pool: ChunkPool,
    max_bytes: u32,
    flow: Rc<Flow>,
    ready: Bytes,
    ready_chunk_len: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames of at most `max_bytes` from `reader`; what is read is told to `flow`.
    pub fn new(reader: R, pool: ChunkPool, max_bytes: u32, flow: Rc<Flow>) -> FrameReader<R> {
        FrameReader { reader, pool, max_bytes, flow, ready: Bytes::new(), ready_chunk_len: 0 }
    }

    /// Waits for the first byte of the next frame; `false` when the stream ends before it.
    ///
    /// # Errors
    /// [`FrameError::Io`]; the stream is of no use afterwards.
    pub async fn begins(&mut self) -> Result<bool, FrameError> {
        Ok(!self.ready.is_empty() || self.more().await?)
    }

    /// Waits for the length of the frame that has begun, and leaves it in the stream.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub async fn length(&mut self) -> Result<usize, FrameError> {
        self.gather(LENGTH_LEN).await?;
        let mut raw = [0; LENGTH_LEN];
        raw.copy_from_slice(&self.ready[..LENGTH_LEN]);
        let length = i32::from_be_bytes(raw);
        if length < SHORTEST || length as u32 > self.max_bytes {
            return Err(FrameError::Length(length, self.max_bytes));
        }
        Ok(length as usize)
    }

    /// Waits for the first 64 KiB of a large frame: whoever claims much must have sent something.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub async fn earnest(&mut self) -> Result<(), FrameError> {
        self.gather(CHUNK_LEN).await
    }

    /// Waits for the frame whose `length` was told, and takes it off.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub async fn body(&mut self, length: usize) -> Result<Bytes, FrameError> {
        let total = LENGTH_LEN + length;
        if !is_large(length) {
            self.gather(total).await?;
        } else if self.ready.len() < total {
            let limit = total + LENGTH_LEN;
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

    /// Waits until the next `bytes` are there, which fit into one small chunk.
    async fn gather(&mut self, bytes: usize) -> Result<(), FrameError> {
        while self.ready.len() < bytes {
            if !self.more().await? {
                return Err(FrameError::Truncated);
            }
        }
        Ok(())
    }

    fn freeze(&mut self, chunk: Chunk) {
        self.ready_chunk_len = chunk.as_ref().len();
        self.ready = chunk.freeze();
    }

    /// Reads what the stream has, behind what is left over; `false` at its end. While there is nothing, the chunk goes back
    /// to its pool.
    async fn more(&mut self) -> Result<bool, FrameError> {
        let chunk = std::future::poll_fn(|cx| {
            let mut chunk = self.pool.take(CHUNK_LEN);
            chunk.extend(&self.ready);
            match Pin::new(&mut self.reader).poll_read(cx, chunk.room(CHUNK_LEN)) {
                Poll::Pending => {
                    if self.ready.len() < self.ready_chunk_len / 4 {
                        self.ready = Bytes::copy_from_slice(&self.ready);
                        self.ready_chunk_len = self.ready.len();
                    }
                    Poll::Pending
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(FrameError::Io(error))),
                Poll::Ready(Ok(0)) => Poll::Ready(Ok(None)),
                Poll::Ready(Ok(count)) => {
                    self.flow.received(count);
                    chunk.advance(count);
                    Poll::Ready(Ok(Some(chunk)))
                }
            }
        })
        .await?;
        let more = chunk.is_some();
        chunk.into_iter().for_each(|chunk| self.freeze(chunk));
        Ok(more)
    }

    async fn fill(&mut self, chunk: &mut Chunk, limit: usize) -> Result<(), FrameError> {
        let read = std::future::poll_fn(|cx| Pin::new(&mut self.reader).poll_read(cx, chunk.room(limit))).await?;
        if read == 0 {
            return Err(FrameError::Truncated);
        }
        self.flow.received(read);
        chunk.advance(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_lite::future::{block_on, poll_once};
    use proptest::prelude::*;
    use thalweg_record::Mono;

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
        over(Steps { bytes, at: 0, steps, turn: 0 }, ChunkPool::default())
    }

    fn over(stream: Steps, pool: ChunkPool) -> FrameReader<Steps> {
        FrameReader::new(stream, pool, 1 << 20, Flow::new(1 << 20, Mono(0)))
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
        if !frames.begins().await? {
            return Ok(None);
        }
        let length = frames.length().await?;
        if is_large(length) {
            frames.earnest().await?;
        }
        frames.body(length).await.map(Some)
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
    fn who_waits_holds_no_more_than_what_came() {
        let pool = ChunkPool::default();
        // A whole frame and the beginning of another, then nothing.
        let stream = Steps { bytes: [wire(&[20_000]), vec![0, 0]].concat(), at: 0, steps: vec![1 << 20, 0], turn: 0 };
        let mut frames = over(stream, pool.clone());
        let whole = block_on(next(&mut frames)).expect("whole").expect("a frame");
        drop(whole);
        assert!(block_on(poll_once(frames.length())).is_none(), "two bytes are no length");
        assert_eq!((frames.ready.len(), pool.free_bytes()), (2, 2 * CHUNK_LEN), "both chunks are back");
    }

    #[test]
    fn a_small_frame_does_not_pin_its_chunk() {
        let pool = ChunkPool::default();
        let stream = Steps { bytes: wire(&[100]), at: 0, steps: vec![1 << 20], turn: 0 };
        let mut frames = over(stream, pool.clone());
        let small = block_on(next(&mut frames)).expect("whole").expect("a frame");
        drop(frames);
        assert_eq!((small.len(), pool.free_bytes()), (100, CHUNK_LEN));
    }
}
