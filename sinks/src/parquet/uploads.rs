//! Uploads to a bucket that were begun and neither completed nor aborted. S3 keeps their parts, and asks to be paid for them, until someone
//! aborts them.
//!
//! `object_store` has no ListMultipartUploads, so the request is made here, with its client and its signature; and so is DeleteObject, for
//! it removes by DeleteObjects alone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use http::{Method, StatusCode};
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path as ObjectPath;
use object_store::signer::Signer;
use serde::Deserialize;
use url::Url;

use super::s3::{s3_error, words};
use super::store::StoreError;

/// Pages of 1,000 uploads that are read at most: the ones behind them are not seen.
const PAGES: usize = 100;
/// How long the URL may be used that only its address is taken of.
const SHORT: Duration = Duration::from_secs(1);

/// Asks a bucket for its open uploads.
#[derive(Debug, Clone)]
pub struct Uploads {
    store: Arc<AmazonS3>,
    client: HttpClient,
    region: String,
}

/// An upload that is neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    pub path: ObjectPath,
    pub id: String,
    pub begun: SystemTime,
}

/// The answer of ListMultipartUploads (Amazon S3 API Reference).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Page {
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
    #[serde(rename = "Upload")]
    uploads: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    upload_id: String,
    /// RFC 3339.
    initiated: String,
}

impl Entry {
    fn understood(self) -> Option<OpenUpload> {
        Some(OpenUpload {
            path: ObjectPath::parse(self.key).ok()?,
            id: self.upload_id,
            begun: DateTime::parse_from_rfc3339(&self.initiated).ok()?.into(),
        })
    }
}

impl Uploads {
    pub fn new(store: Arc<AmazonS3>, client: HttpClient, region: String) -> Uploads {
        Uploads {
            store,
            client,
            region,
        }
    }

    /// The open uploads of objects below a path, at most [`PAGES`] thousand.
    pub async fn open(&self, below: &ObjectPath) -> Result<Vec<OpenUpload>, StoreError> {
        let mut found = Vec::new();
        let mut after = None;
        for _ in 0..PAGES {
            let page = self.page(below, after.as_ref()).await?;
            found.extend(page.uploads.into_iter().filter_map(Entry::understood));
            let next = Some((page.next_key_marker, page.next_upload_id_marker));
            if !page.is_truncated || next == after {
                break;
            }
            after = next;
        }
        Ok(found)
    }

    async fn page(
        &self,
        below: &ObjectPath,
        after: Option<&(String, String)>,
    ) -> Result<Page, StoreError> {
        let mut url = self.address(&ObjectPath::default()).await?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("uploads", "");
            if !below.as_ref().is_empty() {
                query.append_pair("prefix", &format!("{below}/"));
            }
            if let Some((key, id)) = after {
                query.append_pair("key-marker", key);
                query.append_pair("upload-id-marker", id);
            }
        }
        let answer = self.send(Method::GET, &url).await;
        let answer = answer.map_err(|(status, problem)| {
            let hint = match status {
                Some(StatusCode::FORBIDDEN) => {
                    "; give the route's user s3:ListBucketMultipartUploads, or the bucket a lifecycle rule for incomplete uploads"
                }
                _ => "",
            };
            StoreError {
                reason: "s3_failed",
                detail: format!("listing the uploads below {below}: {problem}{hint}"),
            }
        })?;
        quick_xml::de::from_str(&answer).map_err(|error| StoreError {
            reason: "s3_failed",
            detail: format!("the answer with the uploads below {below} is not understood: {error}"),
        })
    }

    /// Removes an object by a request of its own; one that is not there is no error. It is tried once.
    pub async fn remove_object(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let url = self.address(path).await?;
        match self.send(Method::DELETE, &url).await {
            Ok(_) | Err((Some(StatusCode::NOT_FOUND), _)) => Ok(()),
            Err((_, problem)) => Err(StoreError {
                reason: "s3_failed",
                detail: format!("removing s3 object {path}: {problem}"),
            }),
        }
    }

    async fn address(&self, path: &ObjectPath) -> Result<Url, StoreError> {
        let signed = self.store.signed_url(Method::GET, path, SHORT).await;
        let mut url = signed.map_err(|error| s3_error("addressing", path, error))?;
        url.set_query(None);
        Ok(url)
    }

    /// Answers with the body. An error has the status, where there was an answer, and a text for a person.
    async fn send(
        &self,
        method: Method,
        url: &Url,
    ) -> Result<String, (Option<StatusCode>, String)> {
        let failed = |problem: String| (None, problem);
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(|error| failed(words(&error)))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = url
            .as_str()
            .parse()
            .map_err(|error| failed(format!("its address can't be used: {error}")))?;
        AwsAuthorizer::new(&credential, "s3", &self.region).authorize(&mut request, None);
        let answer = self.client.execute(request).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let status = answer.status();
        if !status.is_success() {
            return Err((Some(status), format!("the answer is {status}")));
        }
        let body = answer.into_body().bytes().await;
        let body = body.map_err(|error| failed(error.to_string()))?;
        String::from_utf8(body.to_vec()).map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_uploads_is_read() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Bucket>lake</Bucket><KeyMarker></KeyMarker><UploadIdMarker></UploadIdMarker>
              <NextKeyMarker>plays/day=1/b</NextKeyMarker><NextUploadIdMarker>two</NextUploadIdMarker>
              <MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>
              <Upload><Key>plays/day=1/a</Key><UploadId>one</UploadId><StorageClass>STANDARD</StorageClass>
                <Initiated>2010-11-10T20:48:33.000Z</Initiated></Upload>
              <Upload><Key>plays/day=1/b</Key><UploadId>two</UploadId><Initiated>2010-11-10T20:49:33Z</Initiated></Upload>
            </ListMultipartUploadsResult>"#;
        let page: Page = quick_xml::de::from_str(text).unwrap();
        assert!(page.is_truncated);
        assert_eq!(
            (&*page.next_key_marker, &*page.next_upload_id_marker),
            ("plays/day=1/b", "two")
        );
        let uploads = page.uploads.into_iter().map(Entry::understood);
        let uploads: Vec<_> = uploads.map(Option::unwrap).collect();
        let paths: Vec<_> = uploads.iter().map(|upload| upload.path.as_ref()).collect();
        assert_eq!(paths, ["plays/day=1/a", "plays/day=1/b"]);
        let begun = Duration::from_secs(1_289_422_113);
        assert_eq!(uploads[0].begun, SystemTime::UNIX_EPOCH + begun);
    }

    #[test]
    fn a_page_without_uploads_is_read() {
        let text = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>";
        let page: Page = quick_xml::de::from_str(text).unwrap();
        assert!(page.uploads.is_empty() && !page.is_truncated);
    }
}
