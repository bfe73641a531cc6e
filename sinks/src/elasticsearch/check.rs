//! Asks the nodes whether they are there and let us in, before any event is sent.

use std::time::Duration;

use elasticsearch::http::Method;
use elasticsearch::http::headers::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::bulk::Op;
use super::refusal::Auth;
use super::{Elasticsearch, Reply};

/// A person waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Elasticsearch {
    /// Good where one node is there and lets us in; a node that fails beside it is told of by the sink's state.
    pub(super) async fn check_nodes(&self) -> Result<(), String> {
        let nodes = 0..self.setup.nodes.len();
        let results = futures::future::join_all(nodes.map(|node| self.check_node(node))).await;
        let mut good = None;
        let mut problems = Vec::new();
        for (node, result) in results.into_iter().enumerate() {
            match result {
                Ok(()) => {
                    self.answered(node);
                    good = good.or(Some(node));
                }
                Err(problem) => {
                    self.failed(node, &problem);
                    problems.push(problem);
                }
            }
        }
        match good {
            Some(node) => self.check_privileges(node).await,
            None => Err(problems.join("\n")),
        }
    }

    async fn check_node(&self, node: usize) -> Result<(), String> {
        let reply = self.ask(node, Method::Get, "_cluster/health", None).await?;
        let words = || self.refusal(node, &reply).words();
        match reply.status {
            200..300 => {
                self.health().trust.accepted();
                Ok(())
            }
            // Told at once: a person asks, or a worker that starts and goes on all the same.
            401 => Err(format!("{}; {}", words(), self.setup.auth.advice())),
            // 403: the credentials hold, only not for the cluster's health, which writing events does not need.
            // 408: the cluster is there and not well; Elasticsearch tells us by the events.
            // 410: Elasticsearch Serverless does not show its health.
            403 | 408 | 410 => Ok(()),
            429 | 500..600 => Err(format!("{}; it is there, but not ready", words())),
            _ => Err(format!(
                "{}; that is no Elasticsearch or OpenSearch: check sink.elasticsearch.urls",
                words()
            )),
        }
    }

    /// Whether the user may write to the index. Only a clear "no" of the server is an error: OpenSearch and a cluster without
    /// security don't know the question, and a name with placeholders can't be asked for.
    async fn check_privileges(&self, node: usize) -> Result<(), String> {
        let Some(index) = self.setup.plan.index.fixed() else {
            return Ok(());
        };
        if self.setup.auth == Auth::None {
            return Ok(());
        }
        let privilege = match self.setup.plan.op {
            Op::Index => "index",
            Op::Create => "create_doc",
        };
        let body = json!({"index": [{"names": [index], "privileges": [privilege]}]}).to_string();
        let path = "_security/user/_has_privileges";
        let Ok(reply) = self.ask(node, Method::Post, path, Some(body)).await else {
            return Ok(());
        };
        #[derive(Deserialize)]
        struct Privileges {
            has_all_requested: bool,
        }
        match serde_json::from_slice::<Privileges>(&reply.body) {
            Ok(answer) if reply.status == 200 && !answer.has_all_requested => Err(format!(
                "elasticsearch at {} says that the privilege {privilege:?} on {index} is missing; {}",
                self.setup.nodes[node].name,
                self.setup.auth.privilege_advice()
            )),
            _ => Ok(()),
        }
    }

    async fn ask(
        &self,
        node: usize,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Reply, String> {
        let transport = &self.setup.nodes[node].transport;
        let mut headers = super::common_headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let patience = PATIENCE.min(self.setup.timeout);
        let sent = transport
            .send(method, path, headers, None::<&()>, body, Some(patience))
            .await;
        let reply = match sent {
            Ok(response) => Reply::take(response).await,
            Err(error) => Err(error),
        };
        reply.map_err(|error| {
            let cause = self.unreachable(node, &error, patience);
            format!("{}; check sink.elasticsearch.urls", cause.detail)
        })
    }
}
