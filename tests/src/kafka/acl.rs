//! Access control lists. Neither Kafka's command for them is among what is provided nor can the client library make them, so this is
//! their request, by hand: `CreateAcls`, version 1.

use super::request::Request;
use crate::{Error, Result};

const CREATE_ACLS: i16 = 30;
const VERSION: i16 = 1;
pub(super) const TOPIC: u8 = 2;
pub(super) const GROUP: u8 = 3;
const LITERAL: u8 = 3;
pub(super) const READ: u8 = 3;
pub(super) const WRITE: u8 = 4;
pub(super) const DESCRIBE: u8 = 8;
pub(super) const DENY: u8 = 2;
pub(super) const ALLOW: u8 = 3;
/// Whoever has not said who he is.
const EVERYBODY: &str = "User:ANONYMOUS";
/// Of the answer, before the error of the first list: correlation id, throttle time, number of results.
const HEADER: usize = 12;

/// Gives a topic or a group a list of its own: operations, each with what everybody is told of it. What the list does not allow is denied.
pub(super) fn create(broker: &str, kind: u8, name: &str, entries: &[(u8, u8)]) -> Result<()> {
    let mut request = Request::new(CREATE_ACLS, VERSION);
    request.put(&(entries.len() as i32).to_be_bytes());
    for &(operation, permission) in entries {
        request.put(&[kind]);
        request.text(name);
        request.put(&[LITERAL]);
        request.text(EVERYBODY);
        request.text("*"); // from any host
        request.put(&[operation, permission]);
    }
    let answer = request.ask(broker)?;
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

fn number(rest: &mut &[u8]) -> Result<i16> {
    let (number, after) = rest
        .split_first_chunk()
        .ok_or_else(|| Error::new("the answer is too short"))?;
    *rest = after;
    Ok(i16::from_be_bytes(*number))
}
