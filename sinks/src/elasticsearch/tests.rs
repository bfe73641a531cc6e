//! The sink over real TCP against servers that answer scripted bytes: the faults that a healthy Elasticsearch does not produce.

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::bulk::tests::texts;
use super::options::tests::{context, settings};
use super::*;

/// What a scripted server does with one request.
#[derive(Clone)]
enum Step {
    /// Answers with this status and body.
    Say(u16, &'static str, String),
    /// Sends half of an answer and closes the connection.
    Cut(String),
    /// Closes the connection without a word.
    Close,
    /// Never answers.
    Hang,
}

impl Step {
    /// A short limit for a request where there will be no answer; elsewhere a busy machine may be slow.
    fn limit(&self) -> Option<&'static str> {
        matches!(self, Step::Hang).then_some("sink.elasticsearch.request.timeout.ms=1000")
    }
}

/// Heads (in lower case) and bodies of the requests so far.
type Seen = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

struct Server {
    address: SocketAddr,
    requests: Seen,
}

impl Server {
    /// Takes the steps in order, the last one again and again.
    async fn start(steps: Vec<Step>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let steps = Arc::new(Mutex::new(VecDeque::from(steps)));
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, steps.clone(), seen.clone()));
            }
        });
        Server { address, requests }
    }

    fn requests(&self) -> Vec<(String, Vec<u8>)> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, steps: Arc<Mutex<VecDeque<Step>>>, seen: Seen) {
    while let Some(request) = read_request(&mut stream).await {
        seen.lock().unwrap().push(request);
        let step = {
            let mut steps = steps.lock().unwrap();
            match steps.len() {
                1 => steps[0].clone(),
                _ => steps.pop_front().unwrap(),
            }
        };
        match step {
            Step::Say(status, headers, body) => {
                let head = head(status, headers, body.len());
                stream
                    .write_all(format!("{head}{body}").as_bytes())
                    .await
                    .unwrap();
            }
            Step::Cut(body) => {
                let head = head(200, "", body.len());
                let half = &body[..body.len() / 2];
                stream
                    .write_all(format!("{head}{half}").as_bytes())
                    .await
                    .unwrap();
                return;
            }
            Step::Close => return,
            Step::Hang => std::future::pending().await,
        }
    }
}

fn head(status: u16, headers: &str, length: usize) -> String {
    format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    )
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec())
                .unwrap()
                .to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            let mut body = bytes.split_off(end + 4);
            while body.len() < length {
                stream
                    .read_buf(&mut body)
                    .await
                    .ok()
                    .filter(|read| *read > 0)?;
            }
            return Some((head, body));
        }
        stream
            .read_buf(&mut bytes)
            .await
            .ok()
            .filter(|read| *read > 0)?;
    }
}

fn sink(servers: &[SocketAddr], lines: &[&str]) -> Box<dyn Sink> {
    let urls: Vec<String> = servers
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    let urls = format!("sink.elasticsearch.urls={}", urls.join(","));
    let mut all = vec![
        urls.as_str(),
        "sink.elasticsearch.index=events",
        "delivery.tradeoff=no-duplicates",
    ];
    all.extend_from_slice(lines);
    build(&settings(&all).unwrap(), &context()).unwrap()
}

/// An answer for `count` events from offset 100 on, all with this status.
fn items(count: usize, status: u16) -> String {
    let items: Vec<String> = (0..count)
        .map(|at| {
            format!(
                "{{\"create\":{{\"_id\":\"t-3-{}\",\"status\":{status}}}}}",
                100 + at
            )
        })
        .collect();
    format!("{{\"items\":[{}]}}", items.join(","))
}

fn ok(count: usize) -> Step {
    Step::Say(200, "", items(count, 201))
}

fn retry(result: Result<Answer, SinkError>) -> Cause {
    match result {
        Err(SinkError::Retry(cause)) => cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_is_delivered_by_one_request() {
    let server = Server::start(vec![ok(2)]).await;
    let lines = [
        "sink.elasticsearch.username=u",
        "sink.elasticsearch.password=p",
        "sink.elasticsearch.pipeline=geo",
    ];
    let sink = sink(&[server.address], &lines);
    let batch = texts(&["{\"a\":1}", "{\"a\":2}", "3"]);
    let answer = sink.deliver(&batch).await.unwrap();
    assert_eq!(
        answer.rejected.iter().map(|r| r.index).collect::<Vec<_>>(),
        [2]
    );
    assert!(answer.retry.is_empty() && !answer.held);

    let (head, body) = server.requests().remove(0);
    for expected in [
        "post /_bulk?filter_path=items",
        "&timeout=45000ms&pipeline=geo http/1.1",
        "content-type: application/x-ndjson",
        "accept-encoding: identity",
        "authorization: basic dtpw",
        "x-opaque-id: keystone-r",
        "user-agent: keystone/",
    ] {
        assert!(head.contains(expected), "{expected} in {head}");
    }
    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 4);
    assert!(sink.state().failures.is_empty());
}

#[tokio::test]
async fn a_batch_of_nothing_to_send_makes_no_request() {
    let server = Server::start(vec![Step::Close]).await;
    let sink = sink(&[server.address], &[]);
    assert_eq!(
        sink.deliver(&texts(&["1"])).await.unwrap().rejected.len(),
        1
    );
    assert!(sink.deliver(&texts(&[])).await.unwrap().rejected.is_empty());
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn gzip_carries_the_same_body() {
    let server = Server::start(vec![ok(1)]).await;
    let sink = sink(&[server.address], &["sink.elasticsearch.compression=gzip"]);
    sink.deliver(&texts(&["{\"a\":1}"])).await.unwrap();
    let (head, body) = server.requests().remove(0);
    assert!(
        head.contains("content-encoding: gzip") && head.contains("accept-encoding: gzip"),
        "{head}"
    );
    let mut plain = String::new();
    flate2::read::GzDecoder::new(body.as_slice())
        .read_to_string(&mut plain)
        .unwrap();
    assert_eq!(
        plain,
        "{\"create\":{\"_index\":\"events\",\"_id\":\"t-3-100\"}}\n{\"a\":1}\n"
    );
}

#[tokio::test]
async fn a_fault_of_the_connection_or_the_answer_is_a_retry_and_then_all_is_well() {
    for (step, reason) in [
        (Step::Close, "unreachable"),
        (Step::Cut(items(1, 201)), "unreachable"),
        (Step::Hang, "timeout"),
        (Step::Say(200, "", "<html>".to_owned()), "garbled"),
        (Step::Say(200, "", String::new()), "garbled"),
        (Step::Say(200, "", items(2, 201)), "garbled"),
        (
            Step::Say(200, "", "{\"errors\":false}".to_owned()),
            "garbled",
        ),
        (
            Step::Say(503, "retry-after: 3\r\n", String::new()),
            "http_5xx",
        ),
        (
            Step::Say(429, "retry-after: 3\r\n", String::new()),
            "http_429",
        ),
    ] {
        let limit = step.limit();
        let server = Server::start(vec![step, ok(1)]).await;
        let sink = sink(&[server.address], limit.as_slice());
        let batch = texts(&["{}"]);
        let cause = retry(sink.deliver(&batch).await);
        assert_eq!(cause.reason, reason, "{cause:?}");
        assert_eq!(
            cause.after.is_some(),
            reason.starts_with("http"),
            "{cause:?}"
        );
        let state = sink.state();
        // With 429 the node itself is well. To say that events wait is left to the worker.
        let failed = usize::from(reason != "http_429");
        assert_eq!(state.failures.len(), failed, "{state:?}");
        let address = server.address.to_string();
        assert!(state.failures.iter().all(|text| text.contains(&address)));
        assert!(state.problems.is_empty(), "{state:?}");
        sink.deliver(&batch).await.unwrap();
        assert!(sink.state().failures.is_empty());
    }
}

#[tokio::test]
async fn the_next_attempt_after_a_failure_goes_to_another_node() {
    // A port that nothing listens on, and no other test is given.
    let dead = SocketAddr::from(([127, 0, 0, 1], 1));
    let server = Server::start(vec![ok(1)]).await;
    let sink = sink(&[dead, server.address], &[]);
    let batch = texts(&["{}"]);
    assert_eq!(retry(sink.deliver(&batch).await).reason, "unreachable");
    sink.deliver(&batch).await.unwrap();
    let is_told = |state: SinkState| {
        assert!(state.problems.is_empty(), "{state:?}");
        assert_eq!(state.failures.len(), 1, "{state:?}");
        let text = &state.failures[0];
        assert!(
            text.contains("refused") && text.contains(&dead.to_string()),
            "{text}"
        );
    };
    is_told(sink.state());
    assert_eq!(sink.check().await, Ok(()));
    is_told(sink.state());
}

#[tokio::test]
async fn a_partial_answer_is_no_failure_of_the_node() {
    let server = Server::start(vec![Step::Say(
        200,
        "",
        items(1, 503).replace("503", "503,\"error\":\"x\""),
    )])
    .await;
    let sink = sink(&[server.address], &[]);
    let answer = sink.deliver(&texts(&["{}"])).await.unwrap();
    assert_eq!(answer.retry, [0]);
    let state = sink.state();
    assert!(
        state.problems.is_empty() && state.failures.is_empty(),
        "{state:?}"
    );
}

#[tokio::test]
async fn too_large_splits_refused_credentials_wait_and_a_wrong_address_stops() {
    let server = Server::start(vec![
        Step::Say(413, "", "<html>nginx</html>".to_owned()),
        Step::Say(401, "", String::new()),
        ok(1),
        Step::Say(401, "", String::new()),
        Step::Say(404, "", String::new()),
    ])
    .await;
    let sink = sink(&[server.address], &["sink.elasticsearch.api.key=abc"]);
    let batch = texts(&["{}"]);
    assert!(matches!(
        sink.deliver(&batch).await,
        Err(SinkError::TooLarge(_))
    ));
    // It may be the cluster that restarts, the longer the key was good. When it counts is the trust's.
    for patience in ["lasts 30 s more", "lasts 600 s more"] {
        let cause = retry(sink.deliver(&batch).await);
        assert_eq!(cause.reason, "http_401");
        assert!(
            cause.detail.contains("check sink.elasticsearch.api.key")
                && cause.detail.ends_with(patience),
            "{cause:?}"
        );
        assert_eq!(sink.state().failures, [cause.detail]);
        if patience.contains(" 30 ") {
            sink.deliver(&batch).await.unwrap();
        }
    }
    let Err(SinkError::Fatal(text)) = sink.deliver(&batch).await else {
        panic!()
    };
    assert!(text.ends_with("check sink.elasticsearch.urls"), "{text}");
    assert!(server.requests()[0].0.contains("authorization: apikey abc"));
}

/// An event that can't be sent at all is beside it: the worker sends the halves, and only then is the bad one alone.
#[tokio::test]
async fn an_event_that_can_not_be_parsed_counts_once_beside_one_that_was_not_sent() {
    let unparsed = r#"{"error":{"type":"x_content_parse_exception","reason":"[1:11] Duplicate field 'a'"},"status":400}"#;
    let server = Server::start(vec![Step::Say(400, "", unparsed.to_owned())]).await;
    let sink = sink(&[server.address], &[]);
    for _ in 0..flood::FLOOD {
        let refused = sink.deliver(&texts(&["{}", "7"])).await;
        assert!(
            matches!(refused, Err(SinkError::TooLarge(_))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn check_tells_what_is_wrong_and_where() {
    let security = r#"{"error":{"type":"security_exception","reason":"action [cluster:monitor/health] is unauthorized"}}"#;
    let may = |may: bool| Step::Say(200, "", format!("{{\"has_all_requested\":{may}}}"));
    let say = |status, body: &str| Step::Say(status, "", body.to_owned());
    for (steps, expected) in [
        (vec![say(200, "{}"), may(true)], None),
        (
            vec![say(200, "{}"), may(false)],
            Some("the privilege \"create_doc\" on events is missing"),
        ),
        (vec![say(200, "{}"), say(400, "no handler")], None),
        (vec![say(403, security), may(true)], None),
        (
            vec![say(401, security)],
            Some("check sink.elasticsearch.api.key"),
        ),
        (vec![say(404, "")], Some("check sink.elasticsearch.urls")),
        (vec![say(503, "")], Some("not ready")),
        (vec![Step::Close], Some("check sink.elasticsearch.urls")),
        (vec![Step::Hang], Some("no answer within 1000 ms")),
    ] {
        let mut lines = vec!["sink.elasticsearch.api.key=abc"];
        lines.extend(steps[0].limit());
        let server = Server::start(steps).await;
        let sink = sink(&[server.address], &lines);
        match (sink.check().await, expected) {
            (Ok(()), None) => {}
            (Err(text), Some(expected)) => assert!(text.contains(expected), "{text}"),
            (result, expected) => panic!("{result:?} {expected:?}"),
        }
    }
}
