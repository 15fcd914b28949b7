//! One client's connection: it asks, waits, gives up, and connects again to whatever core it finds.

use std::{io, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future::or};
use kafka_protocol::{
    messages::ResponseHeader,
    protocol::{Decodable, HeaderVersion, Request, StrBytes},
};
use thalweg_rig::{encoded, frame_of};
use thalweg_shards::runtime::seeded::Stream;

use super::{scene::Scene, stream::End};

/// Pause of a client that finds nobody.
const PAUSE: Duration = Duration::from_millis(20);

/// A client.
pub(crate) struct Client {
    pub(crate) scene: Rc<Scene>,
    pub(crate) random: Stream,
    name: &'static str,
    stream: Option<End>,
    correlation: i32,
}

/// A text of the protocol.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Client {
    pub(crate) fn new(scene: &Rc<Scene>, name: &'static str, random: Stream) -> Client {
        Client { scene: scene.clone(), random, name, stream: None, correlation: 0 }
    }

    /// Ends the connection; the broker may still act on what it has read.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }

    pub(crate) async fn pause_ms(&mut self, most: u64) {
        let ms = self.random.below(most.max(1));
        self.scene.pause(Duration::from_millis(ms)).await;
    }

    /// Connects if need be. `false` after a pause when nobody is there.
    async fn connected(&mut self) -> bool {
        if self.stream.is_none() {
            self.stream = self.scene.connect(&mut self.random);
        }
        if self.stream.is_none() {
            self.scene.pause(PAUSE).await;
        }
        self.stream.is_some()
    }

    /// Sends a request and does not wait. `false`: nobody is there, or the connection broke.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, request: &R) -> bool {
        if !self.connected().await {
            return false;
        }
        self.correlation += 1;
        let frame = frame_of(self.name, R::KEY, version, self.correlation, &encoded(request, version));
        let Some(stream) = &mut self.stream else { return false };
        let sent = stream.write_all(&frame).await.is_ok();
        if !sent {
            self.hang_up();
        }
        sent
    }

    /// The next answer; `None` when the connection broke or `patience` is over. Then the connection is ended.
    pub(crate) async fn receive<R: Request>(&mut self, version: i16, patience: Duration) -> Option<R::Response> {
        let stream = self.stream.as_mut()?;
        let late = async {
            self.scene.pause(patience).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let Ok(mut body) = or(frame(stream), late).await else {
            self.hang_up();
            return None;
        };
        self.scene.world.note(u64::from(crc32c::crc32c(&body)));
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version));
        let answer = header.and_then(|_| R::Response::decode(&mut body, version));
        match answer {
            Ok(answer) if body.is_empty() => Some(answer),
            _ => {
                self.scene.model.borrow_mut().broken(format!("{}: an answer cannot be decoded", self.name));
                None
            }
        }
    }

    /// Asks and waits; `None` when nobody is there, the connection broke, or `patience` is over: the outcome is unknown.
    pub(crate) async fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        patience: Duration,
    ) -> Option<R::Response> {
        if !self.send(version, request).await {
            return None;
        }
        self.receive::<R>(version, patience).await
    }
}

async fn frame(stream: &mut End) -> io::Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut body = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).await?;
    Ok(body.into())
}
