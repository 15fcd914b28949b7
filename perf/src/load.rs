//! One connection of the load: a window of requests in flight, answers in order.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::wire;

/// A broker's answers are small; a longer one is not an answer.
const LONGEST_ANSWER: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// What one connection saw.
#[derive(Debug)]
pub struct Outcome {
    /// Of each request, from its first byte sent to its answer read, in microseconds.
    pub latencies_us: Vec<u64>,
}

/// A connection to the broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Says in words why that failed, as every function here.
    pub fn open(bootstrap: &str) -> Result<Connection, String> {
        let stream = TcpStream::connect(bootstrap).map_err(|e| format!("cannot connect to {bootstrap}: {e}"))?;
        let options =
            [stream.set_nodelay(true), stream.set_read_timeout(Some(TIMEOUT)), stream.set_write_timeout(Some(TIMEOUT))];
        options.into_iter().collect::<Result<Vec<()>, _>>().map_err(|e| e.to_string())?;
        Ok(Connection { stream })
    }

    /// Creates the topic unless it is there.
    pub fn create_topic(&mut self, topic: &str, partitions: i32) -> Result<(), String> {
        let mut frame = wire::create_topic_frame(topic, partitions)?;
        self.send(&mut frame, 0)?;
        wire::check_created(self.answer(0)?)
    }

    /// Sends one batch to every partition, again until it is taken: some brokers open a new topic's partitions late.
    pub fn wait_until_open(&mut self, frames: &[Vec<u8>]) -> Result<(), String> {
        let deadline = Instant::now() + TIMEOUT;
        for frame in frames {
            let mut frame = frame.clone();
            loop {
                self.send(&mut frame, 0)?;
                match wire::produced(self.answer(0)?)? {
                    0 => break,
                    code if wire::NOT_OPEN.contains(&code) && Instant::now() < deadline => thread::sleep(PAUSE),
                    code => return Err(format!("the broker refused a batch with error {code}")),
                }
            }
        }
        Ok(())
    }

    /// Sends `requests` requests, the frames in turn, at most `in_flight` at once.
    pub fn produce(&mut self, frames: &[Vec<u8>], requests: u64, in_flight: usize) -> Result<Outcome, String> {
        let mut frames: Vec<Vec<u8>> = frames.to_vec();
        let mut waiting: VecDeque<(i32, Instant)> = VecDeque::new();
        let mut latencies_us = Vec::new();
        let mut sent = 0;
        while sent < requests || !waiting.is_empty() {
            if sent < requests && waiting.len() < in_flight {
                let correlation = (sent & 0x7fff_ffff) as i32;
                let at = (sent % frames.len() as u64) as usize;
                waiting.push_back((correlation, Instant::now()));
                self.send(&mut frames[at], correlation)?;
                sent += 1;
            } else if let Some((correlation, began)) = waiting.pop_front() {
                match wire::produced(self.answer(correlation)?)? {
                    0 => {}
                    code => return Err(format!("the broker refused a batch with error {code}")),
                }
                latencies_us.push(began.elapsed().as_micros() as u64);
            }
        }
        Ok(Outcome { latencies_us })
    }

    fn send(&mut self, frame: &mut [u8], correlation: i32) -> Result<(), String> {
        frame[wire::CORRELATION_AT..wire::CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
        self.stream.write_all(frame).map_err(|e| format!("the connection broke while sending: {e}"))
    }

    fn answer(&mut self, correlation: i32) -> Result<Bytes, String> {
        let broken = |e: std::io::Error| format!("the connection broke while waiting for an answer: {e}");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).map_err(broken)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=LONGEST_ANSWER).contains(&length) {
            return Err(format!("an answer of {length} bytes"));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).map_err(broken)?;
        if answer[..4] != correlation.to_be_bytes() {
            return Err("answers are out of order".to_owned());
        }
        Ok(answer.into())
    }
}
