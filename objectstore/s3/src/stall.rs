//! Connections on which nothing moves are given up: a large object has minutes by its size, which a server that has stopped reading, or
//! one that is gone without a word, would use up.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    Uri,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

/// Opens connections that are watched.
#[derive(Clone, Debug)]
pub(crate) struct WatchedConnector<C> {
    pub(crate) connector: C,
    /// How long nothing may move.
    pub(crate) stall: Duration,
}

impl<C> Service<Uri> for WatchedConnector<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = Watched<C::Response>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Watched<C::Response>, C::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (opening, stall) = (self.connector.call(uri), self.stall);
        Box::pin(async move { Ok(Watched { stream: opening.await?, stall, waits: None }) })
    }
}

/// A connection that fails when somebody has waited for it too long. Only waiting counts: who does not read is not waiting.
pub(crate) struct Watched<S> {
    stream: S,
    stall: Duration,
    /// When it is given up, and whether anybody has waited since something moved.
    waits: Option<(Pin<Box<Sleep>>, bool)>,
}

impl<S> Watched<S> {
    /// Passes on what an attempt to move bytes gave.
    fn seen<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if let Some((_, waiting)) = &mut self.waits {
                *waiting = false;
            }
            return outcome;
        }
        let (end, waiting) = self.waits.get_or_insert_with(|| (Box::pin(sleep(self.stall)), true));
        if !*waiting {
            end.as_mut().reset(Instant::now() + self.stall);
            *waiting = true;
        }
        ready!(end.as_mut().poll(cx));
        let why = format!("nothing moved on the connection for {:?}", self.stall);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<S: Read + Unpin> Read for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(cx, into);
        self.seen(cx, outcome)
    }
}

impl<S: Write + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.seen(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush: it says `Ready` though nothing moves.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.seen(cx, outcome)
    }
}

impl<S: Connection> Connection for Watched<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}
