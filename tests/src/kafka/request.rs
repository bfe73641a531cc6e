//! A request to a broker written by hand, for what no client of ours would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::{Error, Result};

const ANSWER: Duration = Duration::from_secs(20);
/// No answer to what is asked here is longer.
const LARGEST: usize = 64 * 1024;

/// The bytes of one request.
pub struct Request(Vec<u8>);

impl Request {
    /// Begins with the header: which request it is, by Kafka's numbers.
    pub fn new(key: i16, version: i16) -> Request {
        let mut request = Request(Vec::new());
        request.put(&key.to_be_bytes());
        request.put(&version.to_be_bytes());
        request.put(&1_i32.to_be_bytes()); // correlation id
        request.text("keystone-tests");
        request
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// With its length before it.
    pub fn text(&mut self, text: &str) {
        self.put(&(text.len() as i16).to_be_bytes());
        self.put(text.as_bytes());
    }

    /// What the broker answers, without the length before it.
    pub fn ask(&self, broker: &str) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(broker)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(&(self.0.len() as i32).to_be_bytes())?;
        stream.write_all(&self.0)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > LARGEST {
            return Err(Error::new(format!("an answer of {length} bytes")));
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}
