//! An S3-compatible server (S3Proxy) over a local directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::MultipartStore as _;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use crate::process::Process;
use crate::{Doing, Result, block_on, free_port, make_old, provision};

const READY: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(10);

const LOGBACK: &str = r#"<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender"><encoder>
<pattern>%d %-5level %msg%n</pattern></encoder></appender><root level="WARN"><appender-ref ref="out"/></root></configuration>"#;

/// A server of its own with one bucket. Ended, and its data removed, when dropped.
pub struct S3 {
    process: Option<Process>,
    port: u16,
    dir: TempDir,
    lib: PathBuf,
}

impl S3 {
    pub const BUCKET: &str = "keystone";
    pub const ACCESS_KEY: &str = "keystone-key";
    pub const SECRET_KEY: &str = "keystone-secret";
    pub const REGION: &str = "us-east-1";

    /// A private server, ready.
    pub fn start() -> Result<S3> {
        let lib = provision::s3()?.join("lib");
        let dir = tempfile::Builder::new().prefix("keystone-s3-").tempdir()?;
        let port = free_port();
        let data = dir.path().join("data");
        // A bucket is a directory.
        std::fs::create_dir_all(data.join(S3::BUCKET))?;
        let properties = format!(
            "s3proxy.endpoint=http://127.0.0.1:{port}\ns3proxy.authorization=aws-v2-or-v4\ns3proxy.identity={}\n\
             s3proxy.credential={}\njclouds.provider=filesystem-nio2\njclouds.identity=local\njclouds.credential=local\n\
             jclouds.filesystem.basedir={}\n\
             s3proxy.ignore-unknown-headers=true\n",
            S3::ACCESS_KEY,
            S3::SECRET_KEY,
            data.display()
        );
        std::fs::write(dir.path().join("s3proxy.conf"), properties)?;
        std::fs::write(dir.path().join("logback.xml"), LOGBACK)?;
        let mut s3 = S3 {
            process: None,
            port,
            dir,
            lib,
        };
        s3.restart()?;
        Ok(s3)
    }

    /// `http://127.0.0.1:port`, with the bucket in the path.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The lines of a route that reaches the server at this URL.
    pub fn properties(url: &str) -> String {
        format!(
            "sink.parquet.s3.endpoint = {url}\nsink.parquet.s3.region = {}\nsink.parquet.s3.access.key.id = {}\n\
             sink.parquet.s3.secret.access.key = {}\n",
            S3::REGION,
            S3::ACCESS_KEY,
            S3::SECRET_KEY
        )
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(GRACE);
        }
    }

    /// Starts it with the same data on the same port (stopping it first where it runs) and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        remove_unfinished(&self.dir.path().join("data"))?;
        let mut command = Command::new(provision::java()?);
        let logback = self.dir.path().join("logback.xml");
        command
            .arg("-Xmx256m")
            .arg(format!("-Dlogback.configurationFile={}", logback.display()));
        command
            .arg("-cp")
            .arg(self.lib.join("*"))
            .args(["org.gaul.s3proxy.Main", "--properties"]);
        command.arg(self.dir.path().join("s3proxy.conf"));
        let log = self.dir.path().join("s3proxy.log");
        let mut process = Process::spawn("S3Proxy", &mut command, &log, Some(self.dir.path()))?;
        process.wait_ready(READY, || self.list("").map(drop))?;
        self.process = Some(process);
        Ok(())
    }

    /// A client of the bucket.
    pub fn store(&self) -> Result<AmazonS3> {
        let retry = object_store::RetryConfig {
            max_retries: 0,
            ..Default::default()
        };
        let builder = AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_retry(retry);
        let builder = builder.with_bucket_name(S3::BUCKET).with_region(S3::REGION);
        Ok(builder
            .with_access_key_id(S3::ACCESS_KEY)
            .with_secret_access_key(S3::SECRET_KEY)
            .build()?)
    }

    /// The keys under a prefix (whole path segments), sorted.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let store = self.store()?;
        let prefix = object_store::path::Path::from(prefix);
        let found: Vec<_> =
            block_on(store.list(Some(&prefix)).try_collect()).doing("listing the bucket")?;
        let mut keys: Vec<String> = found
            .into_iter()
            .map(|object| object.location.to_string())
            .collect();
        keys.sort();
        Ok(keys)
    }

    /// Dates the objects under a prefix back by this much.
    pub fn make_old(&self, prefix: &str, age: Duration) -> Result<()> {
        let bucket = self.dir.path().join("data").join(S3::BUCKET);
        for key in self.list(prefix)? {
            make_old(&bucket.join(&key), age)?;
        }
        Ok(())
    }

    /// Begins an upload of an object, with one part, and answers with its id.
    pub fn begin_upload(&self, key: &str) -> Result<String> {
        let store = self.store()?;
        let path = object_store::path::Path::parse(key)?;
        let begun = async {
            let id = store.create_multipart(&path).await?;
            let part = store.put_part(&path, &id, 0, vec![7; 1_000].into()).await;
            part.map(|_| id)
        };
        block_on(begun).doing(format!("beginning an upload of {key}"))
    }

    /// Whether an upload is neither completed nor aborted: this server keeps a file of that name so long.
    pub fn is_open(&self, id: &str) -> bool {
        let bucket = self.dir.path().join("data").join(S3::BUCKET);
        bucket.join(id).exists()
    }

    pub fn put(&self, key: &str, content: impl Into<Bytes>) -> Result<()> {
        let content = object_store::PutPayload::from_bytes(content.into());
        block_on(
            self.store()?
                .put(&object_store::path::Path::from(key), content),
        )
        .doing(format!("putting {key}"))?;
        Ok(())
    }

    pub fn get(&self, key: &str) -> Result<Bytes> {
        let store = self.store()?;
        let path = object_store::path::Path::parse(key)?;
        block_on(async { store.get(&path).await?.bytes().await }).doing(format!("getting {key}"))
    }
}

/// S3 has an object whole or not at all. This server writes a file beside it, `<name>-<UUID>`, and leaves that where it is ended meanwhile:
/// an object more afterwards, or one that no list gets past.
fn remove_unfinished(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_unfinished(&path)?;
        } else if is_unfinished(&path.to_string_lossy()) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn is_unfinished(path: &str) -> bool {
    let parts: Vec<usize> = path.rsplit('-').take(5).map(str::len).collect();
    parts == [12, 4, 4, 4, 8] // A UUID, from its end.
}
