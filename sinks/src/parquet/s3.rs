//! Files in a bucket: multipart uploads, which nobody sees before they are completed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::StatusCode;
use object_store::aws::AmazonS3;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, Error, ObjectStoreExt, PutPayload};

use super::STEPS;
use super::failing::Failing;
use super::store::{Parts, Publication, StoreError};
use crate::lock;

/// How long the abort of an upload may take: the bucket may be away, and that is no reason to wait.
const ABORT: Duration = Duration::from_secs(5);

/// S3 wants parts of at least 5 MiB; all but the last are of this size.
const PART: usize = 5 << 20;

/// Counts requests that came to an end, each attempt for itself, and those that failed.
#[derive(Debug)]
pub struct Steps;

#[derive(Debug)]
struct Counted(HttpClient);

impl HttpConnector for Steps {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Counted(client)))
    }
}

impl HttpService for Counted {
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> BoxFuture<'f, Result<HttpResponse, HttpError>>
    where
        's: 'f,
    {
        Box::pin(async move {
            let response = self.0.execute(request).await;
            STEPS.fetch_add(1, Ordering::Relaxed);
            match failure(&response) {
                None => failing().answered(),
                Some(reason) => {
                    metrics::counter!("keystone_parquet_failed_requests_total", "reason" => reason)
                        .increment(1);
                    let told = failing().failed(reason, Instant::now());
                    if let Some(told) = told {
                        tracing::warn!("sink: {told}");
                    }
                }
            }
            response
        })
    }
}

/// As with [`STEPS`], it does not matter for which sink of the process.
static FAILING: Mutex<Failing> = Mutex::new(Failing::new());

fn failing() -> MutexGuard<'static, Failing> {
    lock(&FAILING)
}

/// What is wrong with the bucket, where its requests fail one after the other.
pub(super) fn problem() -> Option<String> {
    failing().problem(Instant::now())
}

/// Why a request failed in a way that may pass.
fn failure(response: &Result<HttpResponse, HttpError>) -> Option<&'static str> {
    match response {
        // The bucket is there, and does not know such a request: `DeleteObjects`, on some servers.
        Ok(response) if response.status() == StatusCode::NOT_IMPLEMENTED => None,
        Ok(response) if response.status().is_server_error() => Some("http_5xx"),
        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => Some("http_429"),
        Ok(_) => None,
        Err(error) if error.kind() == HttpErrorKind::Timeout => Some("timeout"),
        Err(_) => Some("unreachable"),
    }
}

/// A file that is being uploaded.
#[derive(Debug)]
pub struct S3Upload {
    store: Arc<AmazonS3>,
    path: ObjectPath,
    /// Less than a part.
    rest: Vec<u8>,
    /// Once there is more than a part.
    begun: Option<Parts>,
    written: u64,
}

impl S3Upload {
    pub fn new(store: Arc<AmazonS3>, path: ObjectPath) -> S3Upload {
        S3Upload {
            store,
            path,
            rest: Vec::new(),
            begun: None,
            written: 0,
        }
    }

    pub async fn append(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        self.written += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART - self.rest.len()));
            self.rest.extend_from_slice(now);
            bytes = later;
            if self.rest.len() == PART {
                let part = std::mem::take(&mut self.rest);
                self.put_part(part).await?;
            }
        }
        Ok(())
    }

    async fn put_part(&mut self, part: Vec<u8>) -> Result<(), StoreError> {
        let begun = match &mut self.begun {
            Some(begun) => begun,
            none => none.insert(Parts {
                id: self
                    .store
                    .create_multipart(&self.path)
                    .await
                    .map_err(|error| s3_error("beginning", &self.path, error))?,
                parts: Vec::new(),
            }),
        };
        let put = self
            .store
            .put_part(
                &self.path,
                &begun.id,
                begun.parts.len(),
                PutPayload::from(part),
            )
            .await
            .map_err(|error| s3_error("writing a part of", &self.path, error))?;
        begun.parts.push(put.content_id);
        Ok(())
    }

    /// Makes it visible.
    pub async fn publish(&mut self) -> Result<(), StoreError> {
        if self.begun.is_none() {
            let rest = std::mem::take(&mut self.rest);
            return put(&self.store, &self.path, rest).await;
        }
        let parts = self.close().await?;
        match complete(&self.store, &self.path, &parts).await {
            Ok(()) => {}
            // An earlier attempt has come through, and its answer has not. Names are unique: it is this upload that made the object.
            Err(_) if self.store.head(&self.path).await.is_ok() => {}
            Err(error) => return Err(s3_error("completing", &self.path, error)),
        }
        self.begun = None;
        Ok(())
    }

    /// Uploads what is left. The upload stays incomplete, and so invisible.
    pub async fn close(&mut self) -> Result<Parts, StoreError> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() || self.begun.is_none() {
            self.put_part(rest).await?;
        }
        Ok(self.begun.clone().unwrap_or_else(|| Parts {
            id: String::new(),
            parts: Vec::new(),
        }))
    }

    pub async fn abandon(self) {
        if let Some(begun) = &self.begun {
            abort(&self.store, &self.path, &begun.id).await;
        }
    }

    /// Bytes written or waiting to be.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes held in memory.
    pub fn buffered(&self) -> usize {
        self.rest.capacity()
    }
}

async fn complete(store: &AmazonS3, path: &ObjectPath, parts: &Parts) -> object_store::Result<()> {
    let ids = parts.parts.iter().map(|id| PartId {
        content_id: id.clone(),
    });
    let done = store.complete_multipart(path, &parts.id, ids.collect());
    done.await.map(drop)
}

/// Completes an upload that was closed. Whether another worker does the same at this moment does not matter. Where it can't be completed,
/// `impatient` looks for the object: a bucket that is away has been waited for.
pub async fn publish_closed(
    store: &AmazonS3,
    impatient: &AmazonS3,
    path: &ObjectPath,
    parts: &Parts,
) -> Result<Publication, StoreError> {
    match complete(store, path, parts).await {
        Ok(()) => Ok(Publication::Now),
        Err(error) => match impatient.head(path).await {
            // Names are unique: it is this upload that made the object.
            Ok(_) => Ok(Publication::Before),
            // Both are sure: there is no such upload, and no such object.
            Err(Error::NotFound { .. }) if is_missing(&error) => Ok(Publication::Gone),
            Err(_) => Err(s3_error("completing", path, error)),
        },
    }
}

/// Gives an upload up; answers whether it is gone. Where that fails it stays incomplete.
pub async fn abort(store: &AmazonS3, path: &ObjectPath, id: &String) -> bool {
    match tokio::time::timeout(ABORT, store.abort_multipart(path, id)).await {
        Ok(Ok(()) | Err(Error::NotFound { .. })) => true,
        failed => {
            let reason = match failed {
                Ok(Err(error)) => words(&error),
                _ => format!("no answer within {} s", ABORT.as_secs()),
            };
            tracing::warn!(path = %path, "an upload could not be aborted ({reason}); a later sweep does it, or a lifecycle rule of the bucket");
            false
        }
    }
}

/// Writes an object at once.
pub async fn put(store: &AmazonS3, path: &ObjectPath, content: Vec<u8>) -> Result<(), StoreError> {
    let done = store.put(path, PutPayload::from(content)).await;
    done.map(drop)
        .map_err(|error| s3_error("writing", path, error))
}

/// The content of an object, `None` where there is none.
pub async fn read_whole(
    store: &AmazonS3,
    path: &ObjectPath,
) -> Result<Option<Vec<u8>>, StoreError> {
    let read = async { store.get(path).await?.bytes().await };
    match read.await {
        Ok(content) => Ok(Some(content.to_vec())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(s3_error("reading", path, error)),
    }
}

pub async fn remove(store: &AmazonS3, path: &ObjectPath) -> Result<(), StoreError> {
    match store.delete(path).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(s3_error("removing", path, error)),
    }
}

pub fn s3_error(doing: &str, path: &ObjectPath, error: object_store::Error) -> StoreError {
    let (reason, hint) = match &error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => (
            "s3_denied",
            "; check sink.parquet.s3.access.key.id and sink.parquet.s3.secret.access.key, and the bucket's policy",
        ),
        Error::NotFound { .. } => (
            "s3_not_found",
            "; check the bucket in sink.parquet.location, and sink.parquet.s3.region",
        ),
        _ => (
            "s3_failed",
            "; check sink.parquet.s3.endpoint and sink.parquet.s3.region where this lasts",
        ),
    };
    StoreError {
        reason,
        detail: format!("{doing} s3 object {path}: {}{hint}", words(&error)),
    }
}

/// What went wrong, without the answer's body but for its code and message: beside them it may repeat a session token, or what was signed.
pub fn words(error: &object_store::Error) -> String {
    without_body(&error.to_string())
}

/// Whether the bucket itself says that there is no such object or upload. What stands before it (a proxy that has just started) answers 404,
/// too, but not with a code of S3.
fn is_missing(error: &object_store::Error) -> bool {
    let text = error.to_string();
    let code = split_at_body(&text).and_then(|(_, body)| element(body, "Code"));
    matches!(error, Error::NotFound { .. }) && matches!(code, Some("NoSuchKey" | "NoSuchUpload"))
}

fn split_at_body(text: &str) -> Option<(&str, &str)> {
    let start = text.find("<?xml").or_else(|| text.find("<Error"))?;
    Some(text.split_at(start))
}

/// What stands in the first element of this name.
fn element<'b>(body: &'b str, name: &str) -> Option<&'b str> {
    let (_, after) = body.split_once(&format!("<{name}>"))?;
    let (inside, _) = after.split_once(&format!("</{name}>"))?;
    Some(inside)
}

fn without_body(text: &str) -> String {
    let Some((before, body)) = split_at_body(text) else {
        return text.to_owned();
    };
    let said: Vec<&str> = ["Code", "Message"]
        .into_iter()
        .filter_map(|name| element(body, name))
        .collect();
    match said.is_empty() {
        true => format!("{before}(a body without a code)"),
        false => format!("{before}{}", said.join(": ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answers_body_only_code_and_message_are_told() {
        let body = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Token-0>s3cret</Token-0></Error>";
        let text = format!(
            "Server returned non-2xx status code: 400 Bad Request: <?xml version=\"1.0\"?>\n{body}"
        );
        let told = "Server returned non-2xx status code: 400 Bad Request: ExpiredToken: The provided token has expired.";
        assert_eq!(without_body(&text), told);
        assert_eq!(
            without_body(&format!("400: {body}")),
            "400: ExpiredToken: The provided token has expired."
        );
        let cut = "403: <Error><Token-0>s3cret</Token-0>";
        assert_eq!(without_body(cut), "403: (a body without a code)");
        assert_eq!(without_body("timed out"), "timed out");
    }
}
