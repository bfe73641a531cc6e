//! The admin listener: `/metrics` for Prometheus, `/livez` and `/readyz` for the container platform, `/status` for people and a control plane.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use keystone_sinks::Sink;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::metrics;
use crate::state::{Shared, lock};

/// Trouble that lasts shorter than this does not make the worker unready.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections at a time; others wait.
const CONNECTIONS: usize = 64;
/// How long one may take, to the last byte of the answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take until all of a request is there: a probe waits behind connections on which nothing is asked.
const REQUEST: Duration = Duration::from_millis(500);
/// What of a request is kept at once, in bytes.
const BUFFER: usize = 16 * 1024;
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What the handlers look at.
#[derive(Clone)]
pub struct Admin {
    pub shared: Arc<Shared>,
    pub sink: Arc<dyn Sink>,
    pub exporter: PrometheusHandle,
}

/// Opens the listener. The text of an error names the option.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("admin.listen = {address} can't be listened on: {error}"))
}

/// Serves until the runtime ends. Whoever can reach the listener may ask, so what one who asks can take up is bounded.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let app = Router::new()
        .route("/metrics", get(serve_metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(admin);
    let service = TowerToHyperService::new(app);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return; // Nobody closes it.
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of the connection that was to come, or of a process without file descriptors.
                debug!("the admin listener could not accept a connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let mut http = http1::Builder::new();
        http.keep_alive(false).max_buf_size(BUFFER);
        http.timer(TokioTimer::new()).header_read_timeout(REQUEST);
        let answering = http.serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(async move {
            // Whoever hangs up, or takes too long, has no answer.
            let _answered = tokio::time::timeout(ANSWER, answering).await;
            drop(slot);
        });
    }
}

async fn serve_metrics(State(admin): State<Admin>) -> Response {
    let ready = admin.unready().is_empty();
    let text = metrics::render(&admin.exporter, &admin.shared, ready);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

async fn livez(State(admin): State<Admin>) -> Response {
    answer(&admin.dead())
}

async fn readyz(State(admin): State<Admin>) -> Response {
    answer(&admin.unready())
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.status())
}

/// `ok`, or 503 and what is wrong, a line each.
fn answer(problems: &[String]) -> Response {
    if problems.is_empty() {
        return "ok\n".into_response();
    }
    let mut text = problems.join("\n");
    text.push('\n');
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

impl Admin {
    /// Why the process should be restarted.
    fn dead(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.shared.stalled().iter().map(ToString::to_string));
        problems.extend(self.shared.failure());
        problems
    }

    /// Why the worker does not do its work at the moment.
    fn unready(&self) -> Vec<String> {
        let mut problems = self.dead();
        // A place that was lost is a trouble, as others are.
        if lock(&self.shared.membership).is_new() {
            problems.push("the consumer group has not assigned partitions yet".to_owned());
        }
        for (part, trouble) in self.shared.troubles.now() {
            let lasting = trouble.since.elapsed();
            if lasting >= PATIENCE {
                problems.push(format!(
                    "{part}: {} (for {} s)",
                    trouble.text,
                    lasting.as_secs()
                ));
            }
        }
        let state = self.sink.state();
        problems.extend(
            state
                .problems
                .into_iter()
                .map(|text| format!("sink: {text}")),
        );
        problems
    }

    fn status(&self) -> Value {
        let shared = &self.shared;
        let route = &shared.route;
        let sink = self.sink.state();
        let facts: serde_json::Map<String, Value> = sink
            .facts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect();
        let errors: Vec<Value> = shared
            .troubles
            .last_errors()
            .into_iter()
            .map(|(at, text)| {
                let ms = at
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_millis() as i64;
                let time =
                    chrono::DateTime::from_timestamp_millis(ms).map(|time| time.to_rfc3339());
                json!({"time": time, "error": text})
            })
            .collect();
        let unready = self.unready();
        json!({
            "route": route.name,
            "version": env!("CARGO_PKG_VERSION"),
            "config_hash": route.config_hash,
            "tradeoff": route.tradeoff,
            "topics": route.topics,
            "ready": unready.is_empty(),
            "problems": unready,
            "ledger": shared.ledger.view(),
            "partitions": self.partitions(),
            "lanes": {"count": route.lanes, "paused": shared.paused_lanes.load(Ordering::Relaxed)},
            "batches": {"pending": shared.pending_batches.load(Ordering::Relaxed), "held": shared.held().len()},
            "sink": {"type": route.sink_type, "problems": sink.problems, "failures": sink.failures, "facts": facts},
            "dead_letters": {"topic": route.dead_letter_topic},
            "last_errors": errors,
        })
    }

    fn partitions(&self) -> Vec<Value> {
        let views = self.shared.windows();
        let logs = lock(&self.shared.logs).clone();
        views
            .into_iter()
            .map(|view| {
                let log = logs.get(&view.key);
                json!({
                    "topic": *view.key.topic,
                    "partition": view.key.partition,
                    "generation": view.generation,
                    "settled": view.settled,
                    "committed": view.committed,
                    "read": view.tracked,
                    "log_end": log.map(|log| log.high),
                    "lag": log.and_then(|log| log.lag(view.settled)),
                    "unsettled_batches": view.unsettled_claims,
                    "exposed_events": view.exposed,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn connections_on_which_nothing_is_asked_keep_nobody_from_an_answer() {
        let (shared, sink) = crate::state::tests::shared();
        let admin = Admin {
            shared: Arc::new(shared),
            sink,
            exporter: PrometheusBuilder::new().build_recorder().handle(),
        };
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, admin));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let mut asking = TcpStream::connect(address).await.expect("a connection");
        let request = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
        asking.write_all(request).await.expect("it is sent");
        let mut answer = String::new();
        asking.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }
}
