//! A blocking client of one connection, which sends whatever it is told to.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes},
};

/// The client id that every frame bears.
const CLIENT_ID: &str = "rig";
/// An answer that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    correlation: i32,
}

/// A request's frame, its length in front. A key that the protocol crate does not know gets a header of version 2.
pub fn frame(key: i16, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    frame_of(CLIENT_ID, key, version, correlation, body)
}

/// [`frame`] from a client of another name.
pub fn frame_of(client: &str, key: i16, version: i16, correlation: i32, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_string(client.to_owned())));
    let header_version = ApiKey::try_from(key).map_or(2, |key| key.request_header_version(version));
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    header.encode(&mut bytes, header_version).expect("a header");
    bytes.put_slice(body);
    let length = i32::try_from(bytes.len() - 4).expect("frames of tests are small");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes.to_vec()
}

/// A request's body.
pub fn encoded<T: Encodable>(message: &T, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).expect("the test's message fits the version");
    bytes.freeze()
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The operating system's.
    pub fn connect(to: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, correlation: 0 })
    }

    /// An answer that takes longer is an error from now on.
    pub fn patience(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("not zero");
        self.stream.set_write_timeout(Some(limit)).expect("not zero");
    }

    /// The socket.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request; answers its correlation id.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        self.send_body(R::KEY, version, &encoded(request, version))
    }

    /// Sends a request whose body is encoded already; answers its correlation id.
    ///
    /// # Errors
    /// The operating system's.
    pub fn send_body(&mut self, key: i16, version: i16, body: &[u8]) -> io::Result<i32> {
        self.correlation += 1;
        self.write(&frame(key, version, self.correlation, body))?;
        Ok(self.correlation)
    }

    /// The next frame, without its length.
    ///
    /// # Errors
    /// `UnexpectedEof` when the broker closed the connection; the operating system's.
    pub fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(body.into())
    }

    /// The next answer, which is to a request of `R` in `version`, and its correlation id.
    ///
    /// # Errors
    /// As [`Client::receive_frame`].
    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<(i32, R::Response)> {
        let mut body = self.receive_frame()?;
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version)).expect("a header");
        let answer = R::Response::decode(&mut body, version).expect("an answer in the version asked for");
        assert!(body.is_empty(), "{} bytes follow the answer to key {} version {version}", body.len(), R::KEY);
        Ok((header.correlation_id, answer))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// As [`Client::receive_frame`].
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let sent = self.send(version, request)?;
        let (correlation, answer) = self.receive::<R>(version)?;
        assert_eq!(correlation, sent, "answers come in the order of the requests");
        Ok(answer)
    }

    /// Reads until the broker closes the connection; the bytes that came before.
    ///
    /// # Errors
    /// When it does not close within the patience.
    pub fn until_closed(&mut self) -> io::Result<usize> {
        let mut rest = vec![0; 64 << 10];
        let mut count = 0;
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return Ok(count),
                Ok(n) => count += n,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(count),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that nothing more will be sent; answers are still read.
    pub fn finish_sending(&mut self) {
        let _closed_already = self.stream.shutdown(Shutdown::Write);
    }
}
