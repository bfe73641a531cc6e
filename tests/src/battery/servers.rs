//! The servers of the battery, each behind a proxy; those that a run does not need are never started.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Fault;
use super::clock::Clock;
use super::disk::Disk;
use crate::elasticsearch::Options;
use crate::proxy::Proxy;
use crate::{Elasticsearch, Kafka, Metastore, Result, S3, free_port};

/// Bytes that the node of [`Fault::Pressure`] takes at a time.
const PRESSURE: &str = "48kb";

/// A server and the proxy that workers reach it by.
pub(super) struct Behind<T> {
    pub(super) server: T,
    pub(super) proxy: Proxy,
}

impl<T> Behind<T> {
    fn new(server: T, url: &str) -> Result<Behind<T>> {
        let port = url.rsplit(':').next().unwrap_or_default().parse()?;
        Ok(Behind {
            proxy: Proxy::to(port)?,
            server,
        })
    }

    /// What a worker is told.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy.port())
    }
}

pub struct Servers {
    pub(super) kafka: Behind<Kafka>,
    pub(super) elasticsearch: Option<Behind<Elasticsearch>>,
    /// A node that refuses much.
    pub(super) pressed: Option<Behind<Elasticsearch>>,
    pub(super) s3: Option<Behind<S3>>,
    pub(super) metastore: Option<Metastore>,
    /// Of the Parquet files where the disk gets full.
    pub(super) disk: Option<Disk>,
    /// Of the workers where it jumps.
    pub(super) clock: Option<Clock>,
    /// Of the Parquet files.
    pub(super) directory: TempDir,
    /// Names of topics, indices and groups are never used twice.
    pub(super) rounds: usize,
}

impl Servers {
    /// Kafka; the others as they are needed.
    pub fn start() -> Result<Servers> {
        let listener = free_port();
        let proxy = Proxy::to(listener)?;
        let server = Kafka::start_behind(listener, proxy.port())?;
        Ok(Servers {
            kafka: Behind { server, proxy },
            elasticsearch: None,
            pressed: None,
            s3: None,
            metastore: None,
            disk: None,
            clock: None,
            directory: tempfile::Builder::new()
                .prefix("keystone-battery-")
                .tempdir()?,
            rounds: 0,
        })
    }

    /// Keeps the broker's log of a fault that went wrong, in this directory, and says where.
    pub fn keep_log(&self, fault: Fault, directory: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(directory)?;
        let to = directory.join(format!("{fault:?}.kafka.log"));
        self.kafka.server.keep_log(&to)?;
        Ok(to)
    }

    pub(super) fn need_elasticsearch(&mut self, pressed: bool) -> Result<&Behind<Elasticsearch>> {
        let place = if pressed {
            &mut self.pressed
        } else {
            &mut self.elasticsearch
        };
        if place.is_none() {
            let mut options = Options::default();
            if pressed {
                options.settings = vec![(
                    "indexing_pressure.memory.limit".to_owned(),
                    PRESSURE.to_owned(),
                )];
            }
            let server = Elasticsearch::start(options)?;
            let url = server.url();
            *place = Some(Behind::new(server, &url)?);
        }
        Ok(place.as_ref().expect("it was started above"))
    }

    pub(super) fn need_s3(&mut self) -> Result<&Behind<S3>> {
        if self.s3.is_none() {
            let server = S3::start()?;
            let url = server.endpoint();
            self.s3 = Some(Behind::new(server, &url)?);
        }
        Ok(self.s3.as_ref().expect("it was started above"))
    }

    pub(super) fn need_metastore(&mut self) -> Result<&Metastore> {
        if self.metastore.is_none() {
            self.metastore = Some(Metastore::start(self.directory.path())?);
        }
        Ok(self.metastore.as_ref().expect("it was started above"))
    }

    pub(super) fn need_disk(&mut self) -> Result<&Disk> {
        if self.disk.is_none() {
            self.disk = Some(Disk::mount()?);
        }
        Ok(self.disk.as_ref().expect("it was mounted above"))
    }

    pub(super) fn need_clock(&mut self) -> Result<&Clock> {
        if self.clock.is_none() {
            self.clock = Some(Clock::new()?);
        }
        Ok(self.clock.as_ref().expect("it was made above"))
    }

    /// How often the pressed node has refused a request.
    pub(super) fn refused(&self) -> Result<u64> {
        let Some(pressed) = &self.pressed else {
            return Ok(0);
        };
        let stats = pressed
            .server
            .request("GET", "/_nodes/stats/indexing_pressure", None)?;
        let nodes = stats["nodes"].as_object().cloned().unwrap_or_default();
        let rejections = |node: &Value| {
            let total = &node["indexing_pressure"]["memory"]["total"];
            total["coordinating_rejections"].as_u64().unwrap_or(0)
                + total["primary_rejections"].as_u64().unwrap_or(0)
        };
        Ok(nodes.values().map(rejections).sum())
    }
}

/// An index into which titles that are objects don't fit.
pub(super) fn index() -> Value {
    json!({
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"title": {"type": "text"}}}
    })
}
