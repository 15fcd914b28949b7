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

/// Where answers of one connection go.
pub struct AnswerWriter<W> {
    writer: W,
    flow: Rc<Flow>,
    runtime: Rc<dyn Runtime>,
    gathered: BytesMut,
    /// Permits and counts of what is gathered but not written.
    held: Vec<(Ticket, Response)>,
}

impl<W: AsyncWrite + Unpin> AnswerWriter<W> {
    /// Answers go to `writer`.
    pub fn new(writer: W, flow: Rc<Flow>, runtime: Rc<dyn Runtime>) -> AnswerWriter<W> {
        AnswerWriter { writer, flow, runtime, gathered: BytesMut::new(), held: Vec::new() }
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
            let written = poll_fn(|cx| Pin::new(&mut self.writer).poll_write(cx, bytes)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let now = self.runtime.mono();
            self.flow.active.set(now);
            self.flow.sent(now, written);
            bytes = &bytes[written..];
        }
        self.flow.sending(None);
        Ok(())
    }
}
