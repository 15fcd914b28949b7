//! What a handler gets and gives.

use std::{borrow::Cow, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::ApiKey,
    protocol::{Decodable, Encodable, StrBytes},
};
use thalweg_record::Mono;
use thalweg_shards::runtime::LocalBoxFuture;

use super::{Caller, Edge, ErrorCodes, ErrorTally};
use crate::net::{Permit, guarded};

/// What a handler's future resolves to.
pub type Handled = LocalBoxFuture<'static, Result<Response, Close>>;

/// The second half of an ordered handler.
pub type Pending = LocalBoxFuture<'static, Result<Handled, Close>>;

/// How a key is served.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Starts when the answers to all earlier requests of its connection are written.
    Alone(fn(Call, Bytes) -> Handled),
    /// Likewise; it changes nothing, or nothing more when it is asked again: an answer that finds no room is made again
    /// later instead of being kept.
    Asking(fn(Call, Bytes) -> Handled),
    /// Produce: the outer future hands the work to the shards in order; the connection may start the next request of the
    /// same key when it resolves. The inner one waits for the answer.
    Ordered(fn(Call, Bytes) -> Pending),
}

/// One API key as it is served.
#[derive(Clone, Copy)]
pub struct Api {
    /// The key.
    pub key: ApiKey,
    /// Lowest version offered.
    pub min: i16,
    /// Highest version offered.
    pub max: i16,
    /// Lowest version served: Produce 0-2 are offered but not served (KAFKA-18659).
    pub served_from: i16,
    /// Who serves it.
    pub handler: Handler,
}

impl Api {
    /// A key whose requests each run alone on their connection.
    pub const fn new(key: ApiKey, min: i16, max: i16, handler: fn(Call, Bytes) -> Handled) -> Api {
        Api { key, min, max, served_from: min, handler: Handler::Alone(handler) }
    }

    /// A key whose requests each run alone on their connection, and may be run again.
    pub const fn asking(key: ApiKey, min: i16, max: i16, handler: fn(Call, Bytes) -> Handled) -> Api {
        Api { key, min, max, served_from: min, handler: Handler::Asking(handler) }
    }

    /// Whether `version` is served.
    pub fn serves(&self, version: i16) -> bool {
        (self.served_from..=self.max).contains(&version)
    }
}

/// One request.
#[derive(Clone)]
pub struct Call {
    /// The executor's edge.
    pub edge: Rc<Edge>,
    /// Who asks.
    pub caller: Rc<Caller>,
    /// The request's version, within the offered range.
    pub version: i16,
    /// The client id of the request header.
    pub client_id: Option<StrBytes>,
    /// When the frame was complete.
    pub received: Mono,
}

impl Call {
    /// Decodes the request body, under the decode guard. The connection has bounded every length in it before.
    ///
    /// # Errors
    /// [`Close`] when it does not decode.
    pub fn decode<T: Decodable>(&self, mut body: Bytes) -> Result<T, Close> {
        guarded(|| T::decode(&mut body, self.version)).map_err(|error| Close::new(format!("undecodable: {error}")))
    }

    /// Encodes an answer in the request's version.
    ///
    /// # Errors
    /// As [`Response::encode`].
    pub fn respond<T: Encodable + ErrorCodes>(&self, answer: &T) -> Result<Response, Close> {
        Response::encode(answer, self.version)
    }
}

/// Longest text that tells a client what is wrong: it may quote what the client sent.
const MESSAGE_BYTES: usize = 1000;

/// A text that tells a client what is wrong, cut where it is longer than anybody reads.
pub fn message(text: &str) -> StrBytes {
    let mut end = text.len().min(MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    StrBytes::from_string(text[..end].to_owned())
}

/// An answer's body, encoded: what a handler made, without length and response header.
#[derive(Debug, Default)]
pub struct Response {
    /// The body in order; large slices of records stay slices.
    pub pieces: Vec<Bytes>,
    /// Nothing is sent (acks=0).
    pub silent: bool,
    /// After it, the connection is not read for this long (KIP-219).
    pub pause: Duration,
    /// The error codes in it, to be counted when it is sent.
    pub errors: ErrorTally,
    held: Vec<Permit>,
}

impl Response {
    /// A body that one message of the protocol crate makes.
    ///
    /// # Errors
    /// [`Close`] when the answer does not fit `version`, such as a text that is too long for it.
    pub fn encode<T: Encodable + ErrorCodes>(answer: &T, version: i16) -> Result<Response, Close> {
        let unfit = |error| Close::new(format!("the answer does not fit version {version}: {error}"));
        let mut body = BytesMut::with_capacity(answer.compute_size(version).map_err(unfit)?);
        answer.encode(&mut body, version).map_err(unfit)?;
        Ok(Response::from_pieces(vec![body.freeze()], ErrorTally::of(answer)))
    }

    /// A body of pieces encoded already, with the error codes in it.
    pub fn from_pieces(pieces: Vec<Bytes>, errors: ErrorTally) -> Response {
        Response { pieces, errors, ..Response::default() }
    }

    /// No answer at all.
    pub fn silent() -> Response {
        Response { silent: true, ..Response::default() }
    }

    /// Keeps `permit` until the answer is written or its connection gone.
    pub fn holding(mut self, permit: Permit) -> Response {
        self.held.push(permit);
        self
    }

    /// Asks the connection to rest after this answer.
    pub fn then_pause(mut self, pause: Duration) -> Response {
        self.pause = pause;
        self
    }

    /// Whether room for it is accounted for already.
    pub fn holds_room(&self) -> bool {
        !self.held.is_empty()
    }

    /// Length of the body in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a connection must be closed; one line of log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Close(Cow<'static, str>);

impl Close {
    /// Closes for this reason.
    pub fn new(why: impl Into<Cow<'static, str>>) -> Close {
        Close(why.into())
    }
}

impl From<super::Stopping> for Close {
    fn from(stopping: super::Stopping) -> Close {
        Close::new(stopping.to_string())
    }
}
