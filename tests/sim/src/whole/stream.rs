//! A connection in memory: two pipes of bytes, each with a bound, whose pieces arrive as chance has it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use futures_lite::{AsyncRead, AsyncWrite};
use thalweg_shards::runtime::seeded::Stream as Random;

/// Bytes that lie in a pipe before its writer waits.
const ROOM: usize = 32 << 10;

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

type Shared = Rc<RefCell<Pipe>>;

/// One end of a connection. Dropping it closes both ways.
pub(crate) struct End {
    incoming: Shared,
    outgoing: Shared,
    random: Random,
}

/// The two ends of a new connection.
pub(crate) fn connection(random: &mut Random) -> (End, End) {
    let (there, back) = (Shared::default(), Shared::default());
    let end = |incoming: &Shared, outgoing: &Shared, seed| End {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        random: Random::new(seed, 1),
    };
    (end(&there, &back, random.next()), end(&back, &there, random.next()))
}

impl End {
    /// How many of `len` bytes pass at once.
    fn piece(&mut self, len: usize) -> usize {
        if self.random.one_in(6) { 1 + self.random.below(len as u64) as usize } else { len }
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let shared = self.incoming.clone();
        let mut pipe = shared.borrow_mut();
        let at_hand = pipe.bytes.len().min(buf.len());
        if at_hand == 0 {
            if pipe.closed || buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = self.piece(at_hand);
        buf.iter_mut().zip(pipe.bytes.drain(..len)).for_each(|(to, byte)| *to = byte);
        pipe.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let shared = self.outgoing.clone();
        let mut pipe = shared.borrow_mut();
        if pipe.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = ROOM.saturating_sub(pipe.bytes.len()).min(buf.len());
        if room == 0 && !buf.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = if room == 0 { 0 } else { self.piece(room) };
        pipe.bytes.extend(&buf[..len]);
        pipe.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.outgoing.borrow_mut();
        pipe.closed = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        for pipe in [&self.incoming, &self.outgoing] {
            let mut pipe = pipe.borrow_mut();
            pipe.closed = true;
            pipe.wake();
        }
    }
}
