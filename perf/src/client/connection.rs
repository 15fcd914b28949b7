//! One connection to a broker: frames out of several pieces, answers into one buffer that is used again.

use std::{
    io::{ErrorKind, IoSlice, Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;

use super::wire::CORRELATION_AT;

/// A longer answer is none: fetches are limited to 50 MiB.
const LONGEST_ANSWER: usize = 128 << 20;
/// Room for some small answers, so that one call reads them all.
const BUFFER_BYTES: usize = 256 << 10;
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request that carries the same batch in several places: the batch is stored once, what lies between is `glue`.
#[derive(Clone, Debug)]
pub struct Frame {
    glue: Vec<Vec<u8>>,
    batch: Bytes,
}

impl Frame {
    /// Takes an encoded request apart.
    pub fn of(encoded: &[u8], batch: &Bytes) -> Frame {
        let (mut glue, mut from) = (Vec::new(), 0);
        while let Some(at) = encoded[from..].windows(batch.len()).position(|window| window == batch) {
            glue.push(encoded[from..from + at].to_vec());
            from += at + batch.len();
        }
        glue.push(encoded[from..].to_vec());
        Frame { glue, batch: batch.clone() }
    }

    fn pieces(&self) -> Vec<IoSlice<'_>> {
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(self.glue.len() * 2);
        for (n, glue) in self.glue.iter().enumerate() {
            if n > 0 {
                pieces.push(IoSlice::new(&self.batch));
            }
            pieces.push(IoSlice::new(glue));
        }
        pieces
    }
}

/// A connection; its two halves may live on threads of their own.
#[derive(Debug)]
pub struct Connection {
    /// What sends.
    pub requests: Requests,
    /// What receives.
    pub answers: Answers,
}

/// The sending half.
#[derive(Debug)]
pub struct Requests(TcpStream);

/// The receiving half.
#[derive(Debug)]
pub struct Answers {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(bootstrap: &str) -> Result<Connection, String> {
        let refused = |e: std::io::Error| format!("cannot connect to {bootstrap}: {e}");
        let stream = TcpStream::connect(bootstrap).map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(refused)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(refused)?;
        let sender = stream.try_clone().map_err(refused)?;
        let answers = Answers { stream, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 };
        Ok(Connection { requests: Requests(sender), answers })
    }

    /// Sends an encoded request and waits for its answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not one to this request.
    pub fn ask(&mut self, mut request: Vec<u8>, correlation: i32) -> Result<&[u8], String> {
        self.requests.send(&mut request, correlation)?;
        self.answers.next(correlation)
    }
}

impl Requests {
    /// Sends an encoded request under this correlation id.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self, request: &mut [u8], correlation: i32) -> Result<(), String> {
        number(request, correlation);
        self.0.write_all(request).map_err(sending)
    }

    /// Sends a request in pieces under this correlation id.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send_frame(&mut self, frame: &mut Frame, correlation: i32) -> Result<(), String> {
        number(&mut frame.glue[0], correlation);
        let mut pieces = frame.pieces();
        let mut left = &mut pieces[..];
        while !left.is_empty() {
            match self.0.write_vectored(left) {
                Ok(0) => return Err("the connection broke while sending: it takes nothing".to_owned()),
                Ok(sent) => IoSlice::advance_slices(&mut left, sent),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(sending(e)),
            }
        }
        Ok(())
    }
}

fn number(request: &mut [u8], correlation: i32) {
    request[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
}

fn sending(why: std::io::Error) -> String {
    format!("the connection broke while sending: {why}")
}

impl Answers {
    /// The next answer, its correlation id in front; valid until the next call.
    ///
    /// # Errors
    /// When the connection breaks, nothing comes for a minute, or the answer is to another request.
    pub fn next(&mut self, correlation: i32) -> Result<&[u8], String> {
        self.fill(4)?;
        let head = &self.buffer[self.start..self.start + 4];
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if !(4..=LONGEST_ANSWER).contains(&length) {
            return Err(format!("an answer of {length} bytes"));
        }
        self.fill(4 + length)?;
        let answer = self.start + 4..self.start + 4 + length;
        self.start = answer.end;
        let answer = &self.buffer[answer];
        if answer[..4] != correlation.to_be_bytes() {
            return Err("answers are out of order".to_owned());
        }
        Ok(answer)
    }

    /// Reads until `bytes` are there from `start` on.
    fn fill(&mut self, bytes: usize) -> Result<(), String> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.start + bytes > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if bytes > self.buffer.len() {
                self.buffer.resize(bytes, 0);
            }
        }
        while self.end - self.start < bytes {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err("the broker closed the connection".to_owned()),
                Ok(read) => self.end += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("the connection broke while waiting for an answer: {e}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn a_frame_in_pieces_is_the_request_again() {
        let batch = Bytes::from_static(b"=batch=");
        let encoded = b"0123cccc4567=batch=between=batch=after".to_vec();
        let frame = Frame::of(&encoded, &batch);
        let joined: Vec<u8> = frame.pieces().iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(joined, encoded);
        assert_eq!(frame.glue.len(), 3);
    }

    #[test]
    fn answers_arrive_whole_however_the_bytes_come() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let lengths = [4_usize, 300_000, 10, 70_000];
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut sent = Vec::new();
            for (n, length) in lengths.iter().enumerate() {
                sent.extend_from_slice(&(*length as u32).to_be_bytes());
                sent.extend_from_slice(&(n as i32).to_be_bytes());
                sent.resize(sent.len() + length - 4, n as u8);
            }
            for piece in sent.chunks(50_001) {
                stream.write_all(piece).expect("sends");
            }
        });
        let mut connection = Connection::open(&address).expect("connects");
        for (n, length) in lengths.iter().enumerate() {
            let answer = connection.answers.next(n as i32).expect("an answer");
            assert_eq!(answer.len(), *length);
            assert!(answer[4..].iter().all(|byte| *byte == n as u8));
        }
        assert!(connection.answers.next(9).is_err(), "the peer has gone");
        peer.join().expect("the peer");
    }
}
