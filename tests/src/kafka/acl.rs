//! Access control lists. Neither Kafka's command for them is among what is provided nor can the client library make them, so this is
//! their request, by hand: `CreateAcls`, version 1.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::{Error, Result};

const CREATE_ACLS: i16 = 30;
const VERSION: i16 = 1;
const TOPIC: u8 = 2;
const LITERAL: u8 = 3;
pub(super) const READ: u8 = 3;
pub(super) const WRITE: u8 = 4;
pub(super) const DESCRIBE: u8 = 8;
pub(super) const DENY: u8 = 2;
pub(super) const ALLOW: u8 = 3;
/// Whoever has not said who he is.
const EVERYBODY: &str = "User:ANONYMOUS";
const ANSWER: Duration = Duration::from_secs(20);
/// Of the answer, before the error of the first list: correlation id, throttle time, number of results.
const HEADER: usize = 12;
/// No answer of a few results is longer.
const LARGEST: usize = 64 * 1024;

/// Gives a topic a list of its own: operations, each with what everybody is told of it. What the list does not allow is denied.
pub(super) fn create(broker: &str, topic: &str, entries: &[(u8, u8)]) -> Result<()> {
    let mut request = Vec::new();
    request.extend(CREATE_ACLS.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // correlation id
    text(&mut request, "keystone-tests");
    request.extend((entries.len() as i32).to_be_bytes());
    for &(operation, permission) in entries {
        request.push(TOPIC);
        text(&mut request, topic);
        request.push(LITERAL);
        text(&mut request, EVERYBODY);
        text(&mut request, "*"); // from any host
        request.extend([operation, permission]);
    }
    let answer = ask(broker, &request)?;
    let mut rest = answer.get(HEADER..).unwrap_or_default();
    for _ in entries {
        let (error, message) = (number(&mut rest)?, number(&mut rest)?);
        if error != 0 {
            return Err(Error::new(format!("Kafka answered with error {error}")));
        }
        // A text of the length -1 is none.
        rest = rest.get(message.max(0) as usize..).unwrap_or_default();
    }
    Ok(())
}

fn ask(broker: &str, request: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(broker)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&(request.len() as i32).to_be_bytes())?;
    stream.write_all(request)?;
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

fn text(request: &mut Vec<u8>, text: &str) {
    request.extend((text.len() as i16).to_be_bytes());
    request.extend(text.as_bytes());
}

fn number(rest: &mut &[u8]) -> Result<i16> {
    let (number, after) = rest
        .split_first_chunk()
        .ok_or_else(|| Error::new("the answer is too short"))?;
    *rest = after;
    Ok(i16::from_be_bytes(*number))
}
