//! The options of the Elasticsearch sink and its metrics, as data, and what is checked when the sink is built.

use std::time::Duration;

use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{HeaderMap, HeaderValue, X_OPAQUE_ID};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use keystone_config::{Default, Kind, OptionSpec, Problem, Section, Settings, Tradeoff3};
use url::Url;

use super::bulk::{Id, Op, Plan, check_index};
use super::refusal::Auth;
use super::{Elasticsearch, Node};
use crate::metric::{Metric, MetricKind};
use crate::template::{Fields, Template};
use crate::{Context, Sink};

const TRADEOFF: &str = "delivery.tradeoff";
const URLS: &str = "sink.elasticsearch.urls";
const INDEX: &str = "sink.elasticsearch.index";
const OP_TYPE: &str = "sink.elasticsearch.op.type";
const ID: &str = "sink.elasticsearch.id";
const VERSION: &str = "sink.elasticsearch.version";
const PIPELINE: &str = "sink.elasticsearch.pipeline";
const USERNAME: &str = "sink.elasticsearch.username";
const PASSWORD: &str = "sink.elasticsearch.password";
const API_KEY: &str = "sink.elasticsearch.api.key";
const CA_FILE: &str = "sink.elasticsearch.tls.ca.file";
const VERIFY: &str = "sink.elasticsearch.tls.verify";
const COMPRESSION: &str = "sink.elasticsearch.compression";
const TIMEOUT: &str = "sink.elasticsearch.request.timeout.ms";

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: URLS,
        kind: Kind::List,
        default: Default::Required,
        secret: false,
        doc: "Addresses of the nodes, each `http://` or `https://` with the port where it is not 80 or 443, and a path where a proxy wants one. Requests go to the nodes in turn; a node that fails is left alone for 1 to 60 seconds, and gets one request at a time then until it answers, while others are well. Elasticsearch 7, 8 and 9 and OpenSearch are served alike.",
        example: "http://localhost:9200",
    },
    OptionSpec {
        key: INDEX,
        kind: Kind::Checked {
            form: "the name of an index, alias or data stream, in which {field.path} stands for the text of a field and {field.path:%Y.%m.%d} for the time in a field, written by strftime in UTC",
            check: checked_index,
        },
        default: Default::Required,
        secret: false,
        doc: "Index, alias or data stream to write to, for example `events` or `events-{ts:%Y.%m.%d}` or `events-{tenant.id}`. A time is RFC 3339, a date, or a number since 1970 in seconds, milliseconds, microseconds or nanoseconds. Fields are looked up in what the projection made; an event without the field is rejected.",
        example: "events-{ts:%Y.%m.%d}",
    },
    OptionSpec {
        key: ID,
        kind: Kind::Checked {
            form: "auto, topic-partition-offset, or the path of a field",
            check: checked_id,
        },
        default: Default::ByTradeoff(Tradeoff3 {
            low_latency: "auto",
            balanced: "topic-partition-offset",
            no_duplicates: "topic-partition-offset",
        }),
        secret: false,
        doc: "Where the `_id` of a document comes from. `auto`: Elasticsearch makes it; indexing is fastest, and an event that is sent again is there twice. `topic-partition-offset`: an event that is sent again is the same document. It is unique in one Kafka cluster and for one route: let neither routes of several clusters nor several routes with topics in common write to one index with it, or they write over each other's documents. Begin with a new index for a topic that was deleted and made anew: it counts from 0 again. An id is unique in one index: behind a data stream or an alias that rolls over, an event that is sent before a rollover and again after it is there twice. A time series takes `auto` only. Anything else is the path of a field with a text or a number; an event without it is rejected.",
        example: "",
    },
    OptionSpec {
        key: OP_TYPE,
        kind: Kind::Choice(&["auto", "index", "create"]),
        default: Default::Value("auto"),
        secret: false,
        doc: "The bulk action. `index` writes over a document with the same id; `create` leaves it as it is, and the event counts as delivered before. `auto` is `create` where Elasticsearch makes the ids, and with `delivery.tradeoff=no-duplicates` where the id is `topic-partition-offset`; else `index`. Where the id is a field, `create` keeps the first event of each id and leaves out all later ones, which count as suppressed: set it if events of one id are the same. A data stream takes `create` only. To deliver a changed projection over old documents after a rewind, set `index`.",
        example: "",
    },
    OptionSpec {
        key: VERSION,
        kind: Kind::Choice(&["none", "offset"]),
        default: Default::Value("none"),
        secret: false,
        doc: "`offset`: later events win. The offset goes along as an external version (`version_type=external`), and an event whose document is there with the same or a later offset changes nothing and counts as delivered. Without it the event that arrives last wins, which after a retry, a restart or a rebalance may be an older one. For an `_id` from a field, with `sink.elasticsearch.op.type=index`. Offsets are compared, so all events of an id must be in one partition of one topic: key the records by the id. Begin with a new index, also for a topic that was deleted and made anew: documents written without this have versions that count their writes, a new topic counts from 0, and where such a version is the higher one the event is left out.",
        example: "",
    },
    OptionSpec {
        key: PIPELINE,
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "Ingest pipeline that Elasticsearch runs on each document. Without it the index's own default holds.",
        example: "geoip",
    },
    OptionSpec {
        key: USERNAME,
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "User for basic authentication, together with `sink.elasticsearch.password`.",
        example: "keystone",
    },
    OptionSpec {
        key: PASSWORD,
        kind: Kind::Text,
        default: Default::Absent,
        secret: true,
        doc: "Password for basic authentication.",
        example: "${file:/etc/keystone-secrets/elasticsearch-password}",
    },
    OptionSpec {
        key: API_KEY,
        kind: Kind::Text,
        default: Default::Absent,
        secret: true,
        doc: "API key instead of a user: the encoded form that Elasticsearch and Kibana show, or `id:key`. It needs the index privilege `create_doc` (for `sink.elasticsearch.op.type=index`: `index`), and `auto_configure` where indices are made by writing to them.",
        example: "${file:/etc/keystone-secrets/elasticsearch-api-key}",
    },
    OptionSpec {
        key: CA_FILE,
        kind: Kind::Text,
        default: Default::Absent,
        secret: false,
        doc: "PEM file with the certificates of the authority that signed the servers' certificates. They are trusted beside Mozilla's list.",
        example: "/etc/keystone/elasticsearch-ca.pem",
    },
    OptionSpec {
        key: VERIFY,
        kind: Kind::Bool,
        default: Default::Value("true"),
        secret: false,
        doc: "Whether the servers' certificates are verified. `false` lets anybody in between read and change the events.",
        example: "",
    },
    OptionSpec {
        key: COMPRESSION,
        kind: Kind::Choice(&["none", "gzip"]),
        default: Default::Value("none"),
        secret: false,
        doc: "Compression of requests and answers. `gzip` costs CPU at both ends and pays where the network is slow or paid by the byte.",
        example: "",
    },
    OptionSpec {
        key: TIMEOUT,
        kind: Kind::Millis {
            min: 1_000,
            max: 600_000,
        },
        default: Default::Value("60000"),
        secret: false,
        doc: "How long a bulk request may take, from connecting to the end of the answer. Elasticsearch itself gives up on a document whose shard is not there after three quarters of this. After a time-out the batch is sent again to another node.",
        example: "",
    },
];

pub const SECTION: Section = Section {
    title: "Sink: Elasticsearch",
    when: Some(("sink.type", "elasticsearch")),
    options: OPTIONS,
    passthrough: None,
};

pub const METRICS: &[Metric] = &[
    Metric {
        name: "keystone_elasticsearch_requests_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Bulk requests by outcome: ok, partial (some events were rejected or are sent again), refused (the answer was an HTTP error), unreachable, timeout, garbled (the answer could not be matched with the request).",
    },
    Metric {
        name: "keystone_elasticsearch_request_bytes_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Bytes of bulk request bodies as sent, after compression, repeated requests included.",
    },
    Metric {
        name: "keystone_elasticsearch_duplicates_total",
        kind: MetricKind::Counter,
        labels: &["outcome"],
        help: "Events that Elasticsearch had already, by their id: suppressed (the document was left as it was: op type create, or an external version that is not later) or overwritten (op type index wrote the same event again). They count as delivered. Rises after a restart or a rebalance, and while a topic is read again.",
    },
    Metric {
        name: "keystone_elasticsearch_failure_store_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Events that Elasticsearch put into the failure store of a data stream instead of rejecting them. They count as delivered; look into the failure store when this rises.",
    },
    Metric {
        name: "keystone_elasticsearch_dropped_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Events that an ingest pipeline dropped (a `drop` processor): Elasticsearch calls them a success, and they are in no index. They count as delivered.",
    },
    Metric {
        name: "keystone_elasticsearch_node_up",
        kind: MetricKind::Gauge,
        labels: &["node"],
        help: "1 where the last request to this node was answered in good order, 0 where it failed. A node of 0 is left alone for up to a minute, then gets one request at a time, while others are well.",
    },
];

fn checked_index(text: &str) -> Result<(), String> {
    let mut fields = Fields::default();
    let template = Template::parse(text, &mut fields)?;
    let sample = template.sample();
    check_index(&sample).map_err(|problem| match template.fixed() {
        Some(_) => problem,
        None => format!("makes names like {sample:?}, which {problem}"),
    })
}

fn checked_id(text: &str) -> Result<(), String> {
    match text {
        "auto" | "topic-partition-offset" => Ok(()),
        path => Fields::default().slot(path).map(drop),
    }
}

/// Builds the sink, or says all that is wrong with its options. Reads the CA file and touches nothing else.
pub fn build(settings: &Settings, context: &Context) -> Result<Box<dyn Sink>, Vec<Problem>> {
    let mut problems = Vec::new();
    let urls = urls(settings, &mut problems);
    let plan = plan(settings, &mut problems);
    let credentials = credentials(settings, &mut problems);
    let certificates = certificates(settings, &mut problems);
    let auth = match &credentials {
        None => Auth::None,
        Some(Credentials::Basic(..)) => Auth::Password,
        Some(_) => Auth::ApiKey,
    };
    let timeout = settings.millis(TIMEOUT);
    let nodes: Vec<Node> = urls
        .into_iter()
        .filter_map(|url| {
            let connection = Connection {
                credentials: credentials.clone(),
                pem: certificates.as_deref(),
                verify: settings.flag(VERIFY),
                timeout,
                route: &context.route,
            };
            match connection.open(url.clone()) {
                Ok(transport) => Some(Node::new(&url, transport)),
                Err(problem) => {
                    let key = if certificates.is_some() {
                        CA_FILE
                    } else {
                        URLS
                    };
                    problems.push(settings.problem(key, problem, "a PEM file with certificates"));
                    None
                }
            }
        })
        .collect();
    let Some(plan) = plan.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    Ok(Box::new(Elasticsearch::new(super::Setup {
        nodes,
        plan,
        auth,
        gzip: settings.get(COMPRESSION) == "gzip",
        timeout,
        pipeline: settings.text(PIPELINE).map(str::to_owned),
    })))
}

fn urls(settings: &Settings, problems: &mut Vec<Problem>) -> Vec<Url> {
    let hint = "a list of addresses such as http://es1:9200, https://es2:9200/path";
    let mut urls = Vec::new();
    for text in settings.list(URLS) {
        // Text with a password in it is not repeated.
        let shown = match text.rsplit_once('@') {
            Some((_, after)) => format!("…@{after}"),
            None => text.clone(),
        };
        let problem = match Url::parse(&text) {
            Err(error) => format!("{shown:?} is no URL: {error}"),
            Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
                format!("{shown:?} does not begin with http:// or https://")
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                format!("{shown:?} holds credentials, which belong into {USERNAME} and {PASSWORD}")
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                format!("{shown:?} has a part after \"?\" or \"#\"")
            }
            Ok(url) => {
                urls.push(url);
                continue;
            }
        };
        problems.push(settings.problem(URLS, problem, hint));
    }
    urls
}

fn plan(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Plan> {
    let mut fields = Fields::default();
    let index = match Template::parse(settings.get(INDEX), &mut fields) {
        Ok(index) => index,
        Err(problem) => {
            problems.push(settings.problem(INDEX, problem, ""));
            return None;
        }
    };
    let id = match settings.get(ID) {
        "auto" => Id::Auto,
        "topic-partition-offset" => Id::Offset,
        path => match fields.slot(path) {
            Ok(slot) => Id::Field(slot),
            Err(problem) => {
                problems.push(settings.problem(ID, problem, ""));
                return None;
            }
        },
    };
    let once = settings.get(TRADEOFF) == "no-duplicates";
    let op = match (settings.get(OP_TYPE), id) {
        ("create", _) | ("auto", Id::Auto) => Op::Create,
        // Not with an id from a field: a later event of the id is mostly another one, and would be lost.
        ("auto", Id::Offset) if once => Op::Create,
        _ => Op::Index,
    };
    let later_wins = settings.get(VERSION) == "offset";
    if later_wins && !matches!(id, Id::Field(_)) {
        let problem =
            format!("compares events with the same id, and {ID} gives each event its own");
        problems.push(settings.problem(
            VERSION,
            problem,
            "offset only with the path of a field as id",
        ));
    }
    if later_wins && op == Op::Create {
        let problem =
            format!("lets later events win, and {OP_TYPE} = create lets the first one win");
        problems.push(settings.problem(
            VERSION,
            problem,
            "offset only with sink.elasticsearch.op.type=index",
        ));
    }
    Some(Plan {
        index,
        id,
        op,
        later_wins,
        fields,
    })
}

fn credentials(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Credentials> {
    let username = settings.text(USERNAME);
    let password = settings.secret(PASSWORD);
    let key = settings.secret(API_KEY);
    if key.is_some() && username.is_some() {
        let problem = format!("is set together with {USERNAME}");
        problems.push(settings.problem(API_KEY, problem, "one of the two"));
        return None;
    }
    if let Some(key) = key {
        // Both forms; a colon is not in base64.
        let key = key.expose();
        if let Some((id, key)) = key.split_once(':') {
            return Some(Credentials::ApiKey(id.to_owned(), key.to_owned()));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "holds white space or characters that an API key can't have";
            problems.push(settings.problem(API_KEY, problem, "the encoded API key, or id:key"));
            return None;
        }
        return Some(Credentials::EncodedApiKey(key.to_owned()));
    }
    let alone = match (username, &password) {
        (Some(username), Some(password)) => {
            let password = password.expose().to_owned();
            return Some(Credentials::Basic(username.to_owned(), password));
        }
        (None, None) => return None,
        (Some(_), None) => (USERNAME, PASSWORD),
        (None, Some(_)) => (PASSWORD, USERNAME),
    };
    let problem = format!("is set without {}", alone.1);
    problems.push(settings.problem(alone.0, problem, "both or neither"));
    None
}

fn certificates(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let path = settings.text(CA_FILE)?;
    let hint = "a PEM file with certificates";
    if !settings.flag(VERIFY) {
        let problem = format!("is set, but {VERIFY} is false");
        problems.push(settings.problem(CA_FILE, problem, "one of the two"));
    }
    match std::fs::read(path) {
        Ok(pem) => Some(pem),
        Err(error) => {
            let problem = format!("the file {path:?} can't be read: {error}");
            problems.push(settings.problem(CA_FILE, problem, hint));
            None
        }
    }
}

/// How one node is spoken to.
struct Connection<'a> {
    credentials: Option<Credentials>,
    pem: Option<&'a [u8]>,
    verify: bool,
    timeout: Duration,
    route: &'a str,
}

impl Connection<'_> {
    /// A transport of its own for each node: the transport does not tell which of several nodes failed.
    fn open(self, url: Url) -> Result<Transport, String> {
        let mut headers = HeaderMap::new();
        // Elasticsearch shows it in its slow logs and its list of tasks.
        if let Ok(opaque) = HeaderValue::from_str(&format!("keystone-{}", self.route)) {
            headers.insert(X_OPAQUE_ID, opaque);
        }
        let validation = match (self.verify, self.pem) {
            (false, _) => CertificateValidation::None,
            (true, None) => CertificateValidation::Default,
            (true, Some(pem)) => {
                let chain = Certificate::from_pem(pem);
                CertificateValidation::Full(chain.map_err(|error| error.to_string())?)
            }
        };
        // The options alone say where events go: no proxy from the environment.
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url))
            .disable_proxy()
            .enable_meta_header(false)
            .headers(headers)
            .cert_validation(validation)
            .timeout(self.timeout);
        if let Some(credentials) = self.credentials {
            builder = builder.auth(credentials);
        }
        builder.build().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
pub(crate) mod tests;
