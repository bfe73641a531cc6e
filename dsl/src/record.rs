//! What an expression may look at: the event, and the record around it.

/// One event as the source delivered it. It borrows everything, so it costs nothing to make.
#[derive(Clone, Copy)]
pub struct Record<'r> {
    /// The event's bytes.
    pub payload: &'r [u8],
    pub topic: &'r str,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970, where the source knows a time.
    pub timestamp: Option<i64>,
    pub key: Option<&'r [u8]>,
    /// Asked by `header()` only.
    pub headers: &'r dyn Headers,
}

impl<'r> Record<'r> {
    /// An event that came from nowhere: an empty topic, partition and offset 0, and neither time nor key nor headers.
    pub fn of(payload: &'r [u8]) -> Record<'r> {
        Record {
            payload,
            topic: "",
            partition: 0,
            offset: 0,
            timestamp: None,
            key: None,
            headers: &NoHeaders,
        }
    }
}

/// The headers of a record, by name.
pub trait Headers {
    /// The value of the last header of that name; `None` where there is no such header or it has no value. Fails with
    /// the reason where the headers can't be read.
    fn last(&self, name: &str) -> Result<Option<&[u8]>, String>;
}

/// A record without headers.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn last(&self, _: &str) -> Result<Option<&[u8]>, String> {
        Ok(None)
    }
}

/// Headers as a list of names and values.
impl Headers for Vec<(&str, Option<&[u8]>)> {
    fn last(&self, name: &str) -> Result<Option<&[u8]>, String> {
        let found = self.iter().rev().find(|(known, _)| *known == name);
        Ok(found.and_then(|(_, value)| *value))
    }
}
