//! One connection: reader, dispatcher and writer, polled by one task on the executor that accepted it.
//!
//! Answers leave in the order of the requests. A Produce may start while earlier Produces wait for their answers; any
//! other request starts when all earlier ones have finished. Nothing in flight is unbounded: beyond its limits the
//! connection is not read. When it ends, parked requests are dropped with it and every shard forgets its watches.

use std::{convert::Infallible, io, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, future, io::split};
use kafka_protocol::messages::ApiKey;
use thalweg_record::Mono;

use super::{
    Permit, Undecodable,
    answers::AnswerWriter,
    bounds,
    chunk::ChunkPool,
    flow::{Flow, Ticket},
    frame::{FrameError, FrameReader, footprint, is_large},
    header::{RequestHead, response_head_len},
};
use crate::api::{Call, Caller, Close, Edge, Handled, Handler, Response, table, unsupported_version};

/// Bytes read without a pause; then other tasks and I/O have their turn.
const BREATHE_BYTES: usize = 256 << 10;
/// A frame that arrives more slowly closes its connection: half-open and dripping clients must not hold its memory.
const SLOWEST_BYTES_PER_SECOND: usize = 64 << 10;
/// Answers up to this size are bounded by the number of connections alone: each has one that waits.
const SMALL_ANSWER_BYTES: usize = 4 << 10;
/// How long a stopping broker waits for what a connection has in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The client closed it.
    #[error("closed by the client")]
    Eof,
    /// A frame could not be read.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A request's header or body is not what its key and version say.
    #[error("{0}")]
    Undecodable(#[from] Undecodable),
    /// A key or version that is not served.
    #[error("key {0} version {1} is not served")]
    NotServed(i16, i16),
    /// A handler demands it.
    #[error("{0}")]
    Refused(#[from] Close),
    /// An answer could not be written.
    #[error("write failed: {0}")]
    Write(#[source] io::Error),
    /// No byte came or went for `connections.max.idle.ms`.
    #[error("idle")]
    Idle,
    /// A frame arrives too slowly.
    #[error("a frame arrives too slowly")]
    Slow,
    /// Others wait for the room that it holds, and it does not move.
    #[error("it holds room that others wait for, and stands still")]
    InTheWay,
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
    /// The client takes no byte of a waiting answer.
    #[error("the client does not read its answers")]
    Stalled,
}

/// A request as read.
struct Asked {
    head: RequestHead,
    frame: Bytes,
    received: Mono,
    ticket: Ticket,
    /// A large frame has one before it is read; a small one gets it when its turn comes.
    permit: Option<Permit>,
}

/// A request whose answer is due.
struct Due {
    key: ApiKey,
    version: i16,
    correlation: i32,
    received: Mono,
    ticket: Ticket,
    _permit: Permit,
    answer: Handled,
}

struct Connection {
    edge: Rc<Edge>,
    caller: Rc<Caller>,
    flow: Rc<Flow>,
}

/// Tells the shards when a connection is gone, however it ends.
struct Gone(Rc<Edge>, Rc<Caller>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.connection_gone(self.1.conn);
    }
}

/// Serves a connection until it ends.
pub async fn serve<S>(stream: S, edge: Rc<Edge>, caller: Rc<Caller>, pool: ChunkPool) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _gone = Gone(Rc::clone(&edge), Rc::clone(&caller));
    let (input, output) = split(stream);
    let flow = Flow::new(edge.limits.connection_bytes, edge.runtime.mono());
    let frames = FrameReader::new(input, pool, edge.limits.request_max_bytes, Rc::clone(&flow));
    let answers = AnswerWriter::new(output, Rc::clone(&flow), Rc::clone(&edge.runtime));
    let (asked, to_dispatch) = flume::unbounded();
    let (due, to_write) = flume::unbounded();
    let place = Rc::clone(&edge);
    let _watched = place.admission.pressure.watch(Rc::clone(&flow));
    let connection = Connection { edge, caller, flow };
    let reading = connection.read(frames, asked);
    let dispatching = connection.dispatch(to_dispatch, due);
    let writing = connection.write(answers, to_write);
    let watching = connection.watch();
    let stopping = connection.stop();
    let serving = future::or(future::or(reading, dispatching), future::or(writing, watching));
    let outcome = future::or(serving, stopping).await;
    match outcome {
        Err(ended) => ended,
        Ok(never) => match never {},
    }
}

impl Connection {
    fn now(&self) -> Mono {
        self.edge.runtime.mono()
    }

    async fn read<R>(&self, mut frames: FrameReader<R>, asked: flume::Sender<Asked>) -> Result<Infallible, Ended>
    where
        R: AsyncRead + Unpin,
    {
        let mut since_breath = 0;
        loop {
            if !frames.begins().await? {
                // acks=0 and a close at once: what was read whole is still appended.
                self.flow.handed_over().await;
                return Err(Ended::Eof);
            }
            self.flow.receiving(Some(self.now()));
            let length = frames.length().await?;
            self.unhurried(self.flow.room(length, || self.caller.opening.get())).await;
            self.unhurried(self.unmuted()).await;
            let permit = match is_large(length) {
                true => {
                    frames.earnest().await?;
                    Some(self.unhurried(self.edge.admission.request(footprint(length))).await)
                }
                false => None,
            };
            let mut frame = frames.body(length).await?;
            self.flow.receiving(None);
            let received = self.now();
            self.flow.active.set(received);
            let head = RequestHead::take_fixed(&mut frame)?;
            let ticket = self.flow.enter(length, head.key != ApiKey::Produce as i16);
            asked.try_send(Asked { head, frame, received, ticket, permit }).map_err(|_| Ended::Eof)?;
            since_breath += length;
            if since_breath >= BREATHE_BYTES {
                since_breath = 0;
                self.edge.runtime.breathe().await;
            }
        }
    }

    /// Waits while the client is to pause.
    async fn unmuted(&self) {
        while self.now() < self.flow.muted_until.get() {
            self.edge.runtime.sleep_until(self.flow.muted_until.get()).await;
        }
    }

    /// Waits for room: meanwhile it is us who do not read.
    async fn unhurried<T>(&self, room: impl Future<Output = T>) -> T {
        self.flow.receiving(None);
        let room = room.await;
        self.flow.receiving(Some(self.now()));
        room
    }

    async fn dispatch(&self, asked: flume::Receiver<Asked>, due: flume::Sender<Due>) -> Result<Infallible, Ended> {
        loop {
            let next = asked.recv_async().await.map_err(|_| Ended::Eof)?;
            self.unmuted().await;
            let next = self.start(next).await?;
            due.try_send(next).map_err(|_| Ended::Eof)?;
        }
    }

    /// Starts one request. What runs alone has finished when this returns.
    async fn start(&self, asked: Asked) -> Result<Due, Ended> {
        let Asked { mut head, mut frame, received, mut ticket, permit } = asked;
        let (version, correlation) = (head.version, head.correlation);
        let not_served = Ended::NotServed(head.key, version);
        let Some(api) = table::find(head.key) else { return Err(not_served) };
        let permit = match permit {
            Some(permit) => permit,
            None => self.edge.admission.request(footprint(ticket.bytes())).await,
        };
        let due =
            |key, version, ticket, answer| Due { key, version, correlation, received, ticket, _permit: permit, answer };
        if !api.serves(version) {
            if api.key != ApiKey::ApiVersions {
                return Err(not_served);
            }
            self.flow.quiet().await;
            ticket.start(self.now());
            return Ok(due(api.key, 0, ticket, ready(unsupported_version()?)));
        }
        head.take_rest(api.key, &mut frame)?;
        let decoded_bytes = bounds::check(head.key, version, &frame)?;
        let _decoded = self.edge.admission.decoded(decoded_bytes).await;
        let (edge, caller) = (Rc::clone(&self.edge), Rc::clone(&self.caller));
        let call = Call { edge, caller, version, client_id: head.client_id, received };
        match api.handler {
            Handler::Alone(handle) => {
                self.flow.quiet().await;
                ticket.start(self.now());
                let response = self.admitted(handle(call, frame).await?).await;
                ticket.handled();
                Ok(due(api.key, version, ticket, ready(response)))
            }
            Handler::Asking(handle) => {
                self.flow.quiet().await;
                ticket.start(self.now());
                let response = self.asked(handle, call, frame).await?;
                ticket.handled();
                Ok(due(api.key, version, ticket, ready(response)))
            }
            Handler::Ordered(handle) => {
                ticket.start(self.now());
                let answer = handle(call, frame).await?;
                ticket.hand_over();
                Ok(due(api.key, version, ticket, answer))
            }
        }
    }

    /// An answer that has its room, and keeps it until it is written.
    async fn admitted(&self, response: Response) -> Response {
        if response.holds_room() || response.len() <= SMALL_ANSWER_BYTES {
            return response;
        }
        let room = self.edge.admission.response(response.len()).await;
        response.holding(room)
    }

    /// Asks something that changes nothing. An answer for which there is no room is not kept: when there is, it is made
    /// again.
    async fn asked(&self, handle: fn(Call, Bytes) -> Handled, call: Call, frame: Bytes) -> Result<Response, Close> {
        let response = handle(call.clone(), frame.clone()).await?;
        let bytes = response.len();
        if bytes <= SMALL_ANSWER_BYTES {
            return Ok(response);
        }
        if let Some(room) = self.edge.admission.try_response(bytes) {
            return Ok(response.holding(room));
        }
        drop(response);
        let room = self.edge.admission.response(bytes).await;
        Ok(handle(call, frame).await?.holding(room))
    }

    async fn write<W>(&self, mut answers: AnswerWriter<W>, due: flume::Receiver<Due>) -> Result<Infallible, Ended>
    where
        W: AsyncWrite + Unpin,
    {
        loop {
            let mut next = match due.try_recv() {
                Ok(next) => next,
                Err(_empty) => {
                    answers.flush().await.map_err(Ended::Write)?;
                    due.recv_async().await.map_err(|_| Ended::Eof)?
                }
            };
            let outcome = match future::poll_once(&mut next.answer).await {
                Some(outcome) => outcome,
                None => {
                    answers.flush().await.map_err(Ended::Write)?;
                    (&mut next.answer).await
                }
            };
            let response = outcome?;
            self.count(&next, &response);
            let pause = response.pause;
            if !response.silent {
                let pushed = answers.push(next.key, next.version, next.correlation, response, next.ticket);
                pushed.await.map_err(Ended::Write)?;
            }
            if !pause.is_zero() {
                let until = self.now().plus(pause).max(self.flow.muted_until.get());
                self.flow.muted_until.set(until);
            }
        }
    }

    fn count(&self, due: &Due, response: &Response) {
        self.edge.meters.errors(due.key as i16, &response.errors);
        let Some(meters) = self.edge.meters.requests(due.key as i16) else { return };
        meters.requests.increment(1);
        meters.request_bytes.increment(due.ticket.bytes() as u64);
        if !response.silent {
            let bytes = response_head_len(due.key, due.version) + response.len();
            meters.response_bytes.increment(bytes as u64);
        }
        meters.seconds.record(self.now().since(due.received).as_secs_f64());
    }

    /// Ends the connection when it is idle, sends a frame too slowly, does not take its answers, or stands in the way.
    async fn watch(&self) -> Result<Infallible, Ended> {
        let (flow, idle, stall) = (&self.flow, self.edge.limits.idle, self.edge.limits.stall);
        loop {
            let now = self.now();
            if flow.is_condemned() {
                return Err(Ended::InTheWay);
            }
            let answer_due = flow.untouched_since().map(|since| since.plus(stall));
            if answer_due.is_some_and(|due| now >= due) {
                return Err(Ended::Stalled);
            }
            let frame_due = flow.frame_due(stall, SLOWEST_BYTES_PER_SECOND);
            if frame_due.is_some_and(|due| now >= due) {
                return Err(Ended::Slow);
            }
            let idle_at = flow.active.get().plus(idle);
            if now >= idle_at {
                return Err(Ended::Idle);
            }
            let dues = [answer_due, frame_due, Some(idle_at)].into_iter().flatten();
            let next = dues.fold(now.plus(stall / 2), Mono::min);
            future::or(self.edge.runtime.sleep_until(next), flow.condemned()).await;
        }
    }

    /// Ends the connection when the broker stops and nothing is in flight, or it takes too long.
    async fn stop(&self) -> Result<Infallible, Ended> {
        self.edge.stopping().await;
        let patience = self.edge.runtime.sleep_until(self.now().plus(STOP_PATIENCE));
        future::or(self.flow.empty(), patience).await;
        Err(Ended::Stopping)
    }
}

impl Ended {
    /// Whether the broker closed the connection because of what the client did or left undone.
    pub fn is_drop(&self) -> bool {
        !matches!(self, Ended::Eof | Ended::Write(_) | Ended::Stopping)
    }
}

fn ready(response: Response) -> Handled {
    Box::pin(std::future::ready(Ok(response)))
}

#[cfg(test)]
mod tests;
