//! Writes answers: small pieces are gathered, large ones written as they are.
//!
//! There is no vectored write, so a piece of records leaves the shard's memory without another copy only when it is large
//! enough to be worth a system call of its own.

use std::{future::poll_fn, io, pin::Pin, rc::Rc};

use bytes::{Bytes, BytesMut};
use futures_lite::AsyncWrite;
use kafka_protocol::messages::ApiKey;
use thalweg_shards::runtime::Runtime;

use super::{
    flow::{Flow, Ticket},
    header::put_response_head,
};
use crate::api::Response;

/// Pieces from this size on are written as they are.
const LARGE: usize = 16 << 10;
/// What is gathered is written when it reaches this size.
const GATHERED: usize = 64 << 10;
/// What is written before the others on this core may have their turn: the kernel copies it in about 400 us, and a reader that is
/// fast enough would take many times this at one stroke.
const STROKE: usize = 1 << 20;

/// Where answers of one connection go.
pub struct AnswerWriter<W> {
    writer: W,
    flow: Rc<Flow>,
    runtime: Rc<dyn Runtime>,
    gathered: BytesMut,
    /// Bytes written since the others had a turn.
    stroke: usize,
    /// Permits and counts of what is gathered but not written.
    held: Vec<(Ticket, Response)>,
}

impl<W: AsyncWrite + Unpin> AnswerWriter<W> {
    /// Answers go to `writer`.
    pub fn new(writer: W, flow: Rc<Flow>, runtime: Rc<dyn Runtime>) -> AnswerWriter<W> {
        AnswerWriter { writer, flow, runtime, gathered: BytesMut::new(), stroke: 0, held: Vec::new() }
    }

    /// Adds an answer after those before it; it leaves now or with [`AnswerWriter::flush`].
    ///
    /// # Errors
    /// That of the stream.
    pub async fn push(
        &mut self,
        key: ApiKey,
        version: i16,
        correlation: i32,
        mut response: Response,
        ticket: Ticket,
    ) -> io::Result<()> {
        put_response_head(&mut self.gathered, key, version, correlation, response.len())?;
        let pieces = std::mem::take(&mut response.pieces);
        self.held.push((ticket, response));
        for piece in pieces {
            self.piece(piece).await?;
        }
        if self.gathered.len() >= GATHERED { self.flush().await } else { Ok(()) }
    }

    async fn piece(&mut self, piece: Bytes) -> io::Result<()> {
        if piece.len() < LARGE {
            self.gathered.extend_from_slice(&piece);
            return Ok(());
        }
        let before = self.gathered.split();
        self.write_all(&before).await?;
        self.write_all(&piece).await
    }

    /// Writes what is gathered, and gives back what its answers held.
    ///
    /// # Errors
    /// That of the stream.
    pub async fn flush(&mut self) -> io::Result<()> {
        let gathered = self.gathered.split();
        self.write_all(&gathered).await?;
        self.held.clear();
        Ok(())
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.flow.sending(Some(self.runtime.mono()));
        while !bytes.is_empty() {
            let written = {
                let now = &bytes[..bytes.len().min(STROKE - self.stroke)];
                poll_fn(|cx| Pin::new(&mut self.writer).poll_write(cx, now)).await?
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let now = self.runtime.mono();
            self.flow.active.set(now);
            self.flow.sent(now, written);
            bytes = &bytes[written..];
            self.stroke += written;
            if self.stroke >= STROKE {
                self.stroke = 0;
                self.runtime.give_way().await;
            }
        }
        self.flow.sending(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        pin::pin,
        task::{Context, Poll},
    };

    use futures_lite::future::{block_on, poll_once};
    use thalweg_shards::runtime::seeded::{Node, World};

    use super::*;
    use crate::api::ErrorTally;

    /// Takes all it is given, at once.
    struct Eager(Rc<Cell<usize>>);

    impl AsyncWrite for Eager {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.set(self.0.get() + bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_large_answer_to_a_fast_reader_lets_others_on_the_core_have_their_turn() {
        for pieces in [vec![8 << 20], vec![32 << 10; 256]] {
            let world = World::new(7);
            let (runtime, taken) = (world.runtime(Node(1)), Rc::new(Cell::new(0)));
            let flow = Flow::new(1 << 20, runtime.mono());
            let mut answers = AnswerWriter::new(Eager(taken.clone()), flow.clone(), runtime);
            let pieces: Vec<Bytes> = pieces.into_iter().map(|size| Bytes::from(vec![1; size])).collect();
            let response = Response::from_pieces(pieces, ErrorTally::default());
            let ticket = flow.enter(100, false);
            let mut push = pin!(answers.push(ApiKey::Fetch, 12, 1, response, ticket));
            assert!(block_on(poll_once(&mut push)).is_none(), "it cannot be written at one stroke");
            assert!((1..=STROKE).contains(&taken.get()), "{} bytes", taken.get());
        }
    }
}
