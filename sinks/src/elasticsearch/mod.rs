//! The Elasticsearch sink: one `_bulk` request for each batch, and an answer that is read item by item.
//!
//! # What an item's answer means
//!
//! | item | means |
//! |---|---|
//! | 200, 201 | delivered; 200 with an id of our own: it was there and was written over |
//! | 409 version conflict of a `create` | delivered before, a suppressed duplicate; with an id that Elasticsearch made: sent again |
//! | 409 version conflict with an external version | delivered before, or a later event of the id was: suppressed |
//! | `noop` | a pipeline has dropped the event: settled, and counted by itself |
//! | an index whose name is made from the event is closed, read-only or blocks writes | rejected: of many, this one has been put away |
//! | `cluster_block_exception` (disk full, read-only), OpenSearch's `index_create_block_exception`, no room for another index | sent again: somebody at the cluster ends it |
//! | 500 of a pipeline's processor that can't take the event (`fail`, `dissect`, some exceptions of Java itself) | rejected |
//! | 429, any other 5xx, 408 | sent again |
//! | 403, the index name comes from a field of the event | rejected; the worker stops where that befalls many events of several indices in a row |
//! | 401, any other 403, `index` into a data stream, an id for a time series; missing or closed index, alias without write index, missing pipeline, unless a field names the index | the worker stops; where the name is made from the event, rejected as long as others are taken |
//! | any other 4xx | rejected with Elasticsearch's own words |
//!
//! The worker stops where every event would meet the same answer: as dead letters they would bury those that are really bad. A missing
//! or forbidden index can be the event's own fault only where its name is made from the event, and is not where that befalls them all (`flood`).
//!
//! A request that is refused as a whole: `refusal`. There a 401 is waited out (`trust`), and one that can't be parsed is sent in halves.
//!
//! An answer that does not match the request item by item (cut off, another number of items, ids out of order) delivers nothing: the
//! whole batch is sent again. With ids of our own that makes no duplicate. Where an event has got an id that none was sent with, a pipeline
//! sets it, and the worker stops: sent again, it would be there twice. (In a failure store all have other ids, and are not compared.)
//!
//! A dead letter has Elasticsearch's own words. Causes of retries and of the worker's end go to the log and `/status`: of an item they have
//! status, type and index, and of the reason only what quotes no event.
//!
//! Requests and answers use the plain media types, which Elasticsearch 7, 8 and 9 and OpenSearch all take.

use std::error::Error as _;
use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use elasticsearch::http::response::Response;
use elasticsearch::http::transport::Transport;
use metrics::{counter, gauge};
use url::Url;

use crate::{Answer, Batch, BoxFuture, Cause, Sink, SinkError, SinkState, lock};

pub mod answer;
pub mod bulk;
mod check;
mod flood;
mod nodes;
mod options;
mod refusal;
mod trust;

pub use options::{METRICS, OPTIONS, SECTION, build};

use answer::{Outcome, Unsettled};
use bulk::{Plan, Request};
use flood::Flood;
use nodes::Nodes;
use refusal::{Auth, Refusal};
use trust::Trust;

/// One address of `sink.elasticsearch.urls`.
#[derive(Debug)]
struct Node {
    /// Host and port.
    name: String,
    transport: Transport,
}

impl Node {
    fn new(url: &Url, transport: Transport) -> Node {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        Node {
            name: format!("{host}:{port}"),
            transport,
        }
    }
}

/// What the options make of a sink.
struct Setup {
    /// At least one.
    nodes: Vec<Node>,
    plan: Plan,
    auth: Auth,
    gzip: bool,
    timeout: Duration,
    pipeline: Option<String>,
}

struct Elasticsearch {
    setup: Setup,
    /// Query of every bulk request.
    query: Vec<(&'static str, String)>,
    headers: HeaderMap,
    health: Mutex<Health>,
}

/// What is known of the nodes, for choosing one and for `/status`.
struct Health {
    nodes: Nodes,
    /// Why each node failed last; absent where it answered since.
    failures: Vec<Option<String>>,
    trust: Trust,
    flood: Flood,
    last: Option<Last>,
}

struct Last {
    took: Duration,
    events: usize,
    bytes: usize,
}

/// A whole answer.
struct Reply {
    status: u16,
    retry_after: Option<String>,
    body: Bytes,
}

impl Elasticsearch {
    fn new(setup: Setup) -> Elasticsearch {
        let patience = setup.timeout * 3 / 4;
        let mut query = vec![
            ("filter_path", answer::FILTER_PATH.to_owned()),
            // Shorter than our own, so that Elasticsearch says for which documents it gave up.
            ("timeout", format!("{}ms", patience.as_millis())),
        ];
        if let Some(pipeline) = &setup.pipeline {
            query.push(("pipeline", pipeline.clone()));
        }
        let mut headers = common_headers();
        let ndjson = HeaderValue::from_static("application/x-ndjson");
        headers.insert(CONTENT_TYPE, ndjson);
        if setup.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        } else {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let health = Mutex::new(Health {
            nodes: Nodes::new(setup.nodes.len(), setup.timeout),
            failures: vec![None; setup.nodes.len()],
            trust: Trust::default(),
            flood: Flood::default(),
            last: None,
        });
        Elasticsearch {
            setup,
            query,
            headers,
            health,
        }
    }

    async fn deliver_batch(&self, batch: &Batch) -> Result<Answer, SinkError> {
        let mut request = bulk::encode(batch, &self.setup.plan);
        if request.sent.is_empty() {
            return Ok(Answer {
                rejected: request.rejected,
                ..Answer::default()
            });
        }
        let body = self.compressed(std::mem::take(&mut request.body)).await?;
        let bytes = body.len();
        let node = self.health().nodes.pick(Instant::now());
        counter!("keystone_elasticsearch_request_bytes_total").increment(bytes as u64);
        let began = Instant::now();
        let reply = match self.post(node, body).await {
            Ok(reply) => reply,
            Err(cause) => {
                count_request(cause.reason);
                self.failed(node, &cause.detail);
                return Err(SinkError::Retry(cause));
            }
        };
        self.health().last = Some(Last {
            took: began.elapsed(),
            events: request.sent.len(),
            bytes,
        });
        self.read(node, &reply, &request, batch)
    }

    /// Sends a body to a node and takes the whole answer.
    async fn post(&self, node: usize, body: Bytes) -> Result<Reply, Cause> {
        let transport = &self.setup.nodes[node].transport;
        let headers = self.headers.clone();
        let query = Some(self.query.as_slice());
        let timeout = Some(self.setup.timeout);
        let sent = transport
            .send(Method::Post, "_bulk", headers, query, Some(body), timeout)
            .await;
        let reply = match sent {
            Ok(response) => Reply::take(response).await,
            Err(error) => Err(error),
        };
        reply.map_err(|error| self.unreachable(node, &error, self.setup.timeout))
    }

    /// Says what became of the events by the answer of a node.
    fn read(
        &self,
        node: usize,
        reply: &Reply,
        request: &Request,
        batch: &Batch,
    ) -> Result<Answer, SinkError> {
        if !(200..300).contains(&reply.status) {
            count_request("refused");
            let refusal = self.refusal(node, reply);
            let verdict = {
                let Health { trust, flood, .. } = &mut *self.health();
                // Of the whole batch, for that is what is sent in halves: else the last event sent of several would count twice.
                refusal.verdict(batch.len(), trust, flood, Instant::now())
            };
            match &verdict {
                SinkError::Retry(cause)
                    if cause.reason != "http_429" && cause.reason != "blocked" =>
                {
                    self.failed(node, &cause.detail);
                }
                _ => self.answered(node),
            }
            return Err(verdict);
        }
        let settled = answer::settle(&reply.body, request, &self.setup.plan, batch);
        let judged = settled.and_then(|mut outcome| {
            let mut health = self.health();
            health.trust.accepted();
            let judged = health.flood.judge(&mut outcome);
            judged.map_err(Unsettled::Fatal).map(|()| outcome)
        });
        match judged {
            Ok(outcome) => {
                count(&outcome);
                self.answered(node);
                Ok(outcome.answer)
            }
            Err(Unsettled::Fatal(text)) => {
                count_request("refused");
                self.answered(node);
                Err(SinkError::Fatal(text))
            }
            Err(Unsettled::Unreadable(problem)) => {
                count_request("garbled");
                let name = &self.setup.nodes[node].name;
                let detail = format!(
                    "the answer of elasticsearch at {name} does not fit the request: {problem}"
                );
                self.failed(node, &detail);
                Err(SinkError::Retry(Cause {
                    reason: "garbled",
                    detail,
                    after: None,
                }))
            }
        }
    }

    fn refusal<'a>(&'a self, node: usize, reply: &'a Reply) -> Refusal<'a> {
        Refusal {
            status: reply.status,
            body: &reply.body,
            retry_after: reply.retry_after.as_deref(),
            node: &self.setup.nodes[node].name,
            auth: self.setup.auth,
            now: chrono::Utc::now(),
        }
    }

    /// Why a request got no answer, or not all of it.
    fn unreachable(&self, node: usize, error: &elasticsearch::Error, timeout: Duration) -> Cause {
        let name = &self.setup.nodes[node].name;
        if error.is_timeout() {
            return Cause {
                reason: "timeout",
                detail: format!(
                    "elasticsearch at {name} gave no answer within {} ms",
                    timeout.as_millis()
                ),
                after: None,
            };
        }
        // The outer texts repeat the address and say less than the inner ones.
        let mut words = error.to_string();
        let mut source = error.source().and_then(|error| error.source());
        if let Some(first) = source {
            words = first.to_string();
            source = first.source();
        }
        while let Some(error) = source {
            words = format!("{words}: {error}");
            source = error.source();
        }
        if words.contains("certificate") {
            words.push_str("; check sink.elasticsearch.tls.ca.file");
        }
        Cause {
            reason: "unreachable",
            detail: format!("elasticsearch at {name} can't be reached: {words}"),
            after: None,
        }
    }

    async fn compressed(&self, body: Vec<u8>) -> Result<Bytes, SinkError> {
        if !self.setup.gzip {
            return Ok(body.into());
        }
        // Some ten milliseconds a megabyte: too long for a thread that serves others.
        let packed = tokio::task::spawn_blocking(move || {
            let room = Vec::with_capacity(body.len() / 4);
            // The fastest level: events repeat their field names, which any level finds.
            let mut gzip = flate2::write::GzEncoder::new(room, flate2::Compression::fast());
            gzip.write_all(&body)?;
            gzip.finish()
        });
        match packed.await {
            Ok(Ok(packed)) => Ok(packed.into()),
            failed => Err(SinkError::Retry(Cause {
                reason: "gzip",
                detail: format!("the request could not be compressed: {failed:?}"),
                after: None,
            })),
        }
    }

    /// The node is of use, whatever it said of the events.
    fn answered(&self, node: usize) {
        let mut health = self.health();
        health.nodes.well(node);
        health.failures[node] = None;
        self.show(node, true);
    }

    fn failed(&self, node: usize, problem: &str) {
        let mut health = self.health();
        health.nodes.failed(node, Instant::now());
        health.failures[node] = Some(problem.to_owned());
        self.show(node, false);
    }

    fn show(&self, node: usize, up: bool) {
        let name = self.setup.nodes[node].name.clone();
        gauge!("keystone_elasticsearch_node_up", "node" => name).set(if up { 1.0 } else { 0.0 });
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }
}

impl Reply {
    async fn take(response: Response) -> Result<Reply, elasticsearch::Error> {
        let status = response.status_code().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        Ok(Reply {
            status,
            retry_after: retry_after.map(str::to_owned),
            body: response.bytes().await?,
        })
    }
}

/// The plain media type, and who asks.
fn common_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let agent = concat!("keystone/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

fn count_request(outcome: &'static str) {
    counter!("keystone_elasticsearch_requests_total", "outcome" => outcome).increment(1);
}

fn count(outcome: &Outcome) {
    let whole = outcome.answer.rejected.is_empty() && outcome.answer.retry.is_empty();
    count_request(if whole { "ok" } else { "partial" });
    for (label, number) in [
        ("suppressed", outcome.suppressed),
        ("overwritten", outcome.overwritten),
    ] {
        counter!("keystone_elasticsearch_duplicates_total", "outcome" => label).increment(number);
    }
    counter!("keystone_elasticsearch_failure_store_total").increment(outcome.failure_store);
    counter!("keystone_elasticsearch_dropped_total").increment(outcome.dropped);
}

impl Sink for Elasticsearch {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(self.deliver_batch(batch))
    }

    /// A call makes one request, and the limit holds from the connection to the last byte of the answer.
    fn longest_step(&self) -> Option<Duration> {
        Some(self.setup.timeout)
    }

    fn adapts(&self) -> bool {
        true
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.check_nodes())
    }

    /// A node that failed is no problem, and neither is the last of them: the worker tells of events that wait, and where none waits, nobody
    /// would ask again whether the nodes are back.
    fn state(&self) -> SinkState {
        let health = self.health();
        let names = self.setup.nodes.iter().map(|node| node.name.as_str());
        let mut facts = vec![("nodes", names.collect::<Vec<_>>().join(", "))];
        if let Some(last) = &health.last {
            facts.push((
                "last_request",
                format!(
                    "{} events in {} bytes took {} ms",
                    last.events,
                    last.bytes,
                    last.took.as_millis()
                ),
            ));
        }
        SinkState {
            failures: health.failures.iter().flatten().cloned().collect(),
            facts,
            ..SinkState::default()
        }
    }
}

#[cfg(test)]
mod tests;
