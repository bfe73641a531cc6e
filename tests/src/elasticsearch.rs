//! A real Elasticsearch: one node, without or with a password.
//!
//! The packaging of the server that Maven has is its core with security; it lacks modules that other packagings have (`GET /`,
//! ingest, scripts).

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{self, Process};
use crate::{Doing, Error, Result, free_port, http, provision};

const READY: Duration = Duration::from_secs(180);
const GRACE: Duration = Duration::from_secs(30);
/// The user that the server runs as where we are root, which it refuses: `nobody`.
const NOBODY: u32 = 65534;
/// Of the user `elastic` of [`Elasticsearch::secured`].
pub const PASSWORD: &str = "pass word:ü";
/// Documents a page when an index is read to its end.
const PAGE: usize = 10_000;

/// A node of its own. Ended, and its data removed, when dropped.
pub struct Elasticsearch {
    process: Option<Process>,
    port: u16,
    password: Option<String>,
    dir: TempDir,
    home: PathBuf,
}

/// How a private node differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Turns security on, without TLS: the password of the user `elastic`.
    pub password: Option<String>,
    /// More lines of `elasticsearch.yml`.
    pub settings: Vec<(String, String)>,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    pub id: String,
    pub source: Value,
}

impl Elasticsearch {
    /// A private node, ready.
    pub fn start(options: Options) -> Result<Elasticsearch> {
        let home = provision::elasticsearch()?;
        let dir = tempfile::Builder::new()
            .prefix("keystone-elasticsearch-")
            .tempdir()?;
        let port = free_port();
        configure(&home, dir.path(), port, &options)?;
        let mut server = Elasticsearch {
            process: None,
            port,
            password: options.password,
            dir,
            home,
        };
        server.give_away_directory()?;
        if let Some(password) = server.password.clone() {
            server.set_password(&password)?;
        }
        server.restart()?;
        Ok(server)
    }

    /// The node that all tests of this process share. Use indices of your own.
    pub fn shared() -> Result<&'static Elasticsearch> {
        static SHARED: OnceLock<Result<Elasticsearch, String>> = OnceLock::new();
        let start = || Elasticsearch::start(Options::default()).map_err(|error| error.to_string());
        SHARED.get_or_init(start).as_ref().map_err(Error::new)
    }

    /// The same with a password: [`PASSWORD`].
    pub fn secured() -> Result<&'static Elasticsearch> {
        static SECURED: OnceLock<Result<Elasticsearch, String>> = OnceLock::new();
        let options = || Options {
            password: Some(PASSWORD.to_owned()),
            ..Options::default()
        };
        let start = || Elasticsearch::start(options()).map_err(|error| error.to_string());
        SECURED.get_or_init(start).as_ref().map_err(Error::new)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it cleanly.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(GRACE);
        }
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it with the same data on the same port (stopping it first where it runs) and waits until its data can be searched.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = self.program("elasticsearch")?;
        command.env("ES_JAVA_OPTS", "-Xms1g -Xmx1g");
        let log = self.dir.path().join("console.log");
        let mut process =
            Process::spawn("Elasticsearch", &mut command, &log, Some(self.dir.path()))?;
        process.wait_ready(READY, || {
            let health = self.request(
                "GET",
                "/_cluster/health?wait_for_status=yellow&timeout=1s",
                None,
            )?;
            match health["status"].as_str() {
                Some("yellow" | "green") => Ok(()),
                _ => Err(Error::new(format!("the cluster's health is {health}"))),
            }
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// One request with a JSON body; the answer's JSON. A status of 400 and more is an error with the answer's text.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let method = method.parse::<reqwest::Method>()?;
        let mut request = http().request(method.clone(), format!("{}{path}", self.url()));
        if let Some(password) = &self.password {
            request = request.basic_auth("elastic", Some(password));
        }
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_string());
        }
        let response = request.send()?;
        let status = response.status();
        let text = response.text()?;
        match status.is_success() {
            true => {
                serde_json::from_str(&text).doing(format!("reading the answer to {method} {path}"))
            }
            false => Err(Error::new(format!(
                "Elasticsearch answered {method} {path} with {status}: {text}"
            ))),
        }
    }

    /// Creates an index; `body` holds settings and mappings.
    pub fn create_index(&self, index: &str, body: &Value) -> Result<()> {
        self.request("PUT", &format!("/{index}"), Some(body))
            .map(drop)
    }

    /// How many documents an index holds; none where it does not exist.
    pub fn count(&self, index: &str) -> Result<u64> {
        let query = format!("/{index}/_refresh?ignore_unavailable=true");
        self.request("POST", &query, None)?;
        let answer = self.request(
            "GET",
            &format!("/{index}/_count?ignore_unavailable=true"),
            None,
        )?;
        answer["count"]
            .as_u64()
            .ok_or_else(|| Error::new(format!("no count in {answer}")))
    }

    /// Reads an index (or a pattern of indices) to its end.
    pub fn search(&self, index: &str, mut each: impl FnMut(Document)) -> Result<()> {
        self.request("POST", &format!("/{index}/_refresh"), None)?;
        let query = json!({"size": PAGE, "sort": ["_doc"]});
        let mut page =
            self.request("POST", &format!("/{index}/_search?scroll=2m"), Some(&query))?;
        loop {
            let hits = page["hits"]["hits"]
                .as_array()
                .ok_or_else(|| Error::new(format!("no hits in {page}")))?;
            for hit in hits {
                let id = hit["_id"].as_str().unwrap_or_default().to_owned();
                each(Document {
                    id,
                    source: hit["_source"].clone(),
                });
            }
            let scroll = page["_scroll_id"].clone();
            if hits.is_empty() {
                self.request(
                    "DELETE",
                    "/_search/scroll",
                    Some(&json!({"scroll_id": scroll})),
                )?;
                return Ok(());
            }
            page = self.request(
                "POST",
                "/_search/scroll",
                Some(&json!({"scroll": "2m", "scroll_id": scroll})),
            )?;
        }
    }

    /// All documents of an index: `_id` and `_source`.
    pub fn search_all(&self, index: &str) -> Result<HashMap<String, Value>> {
        let mut documents = HashMap::new();
        self.search(index, |document| {
            documents.insert(document.id, document.source);
        })?;
        Ok(documents)
    }

    /// A program of the server's `bin`, run as a user that it does not refuse.
    fn program(&self, name: &str) -> Result<Command> {
        let program = self.home.join("bin").join(name);
        let mut command = match is_root()? {
            false => Command::new(&program),
            true => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={NOBODY}"))
                    .arg(format!("--regid={NOBODY}"))
                    .arg("--clear-groups");
                // The servers may lie below a directory that only root may enter.
                command.args([
                    "--inh-caps=+dac_read_search",
                    "--ambient-caps=+dac_read_search",
                ]);
                command.arg(&program);
                command
            }
        };
        command
            .env("ES_JAVA_HOME", provision::java_home()?)
            .env("ES_PATH_CONF", self.dir.path().join("config"));
        command
            .env("ES_TMPDIR", self.dir.path().join("tmp"))
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path());
        Ok(command)
    }

    fn set_password(&self, password: &str) -> Result<()> {
        let mut create = self.program("elasticsearch-keystore")?;
        process::run("elasticsearch-keystore create", create.arg("create"), READY)?;
        let mut add = self.program("elasticsearch-keystore")?;
        add.args(["add", "--stdin", "bootstrap.password"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = add.spawn().doing("running elasticsearch-keystore")?;
        let mut stdin = child
            .stdin
            .take()
            .ok_or_else(|| Error::new("elasticsearch-keystore has no standard input"))?;
        stdin.write_all(password.as_bytes())?;
        drop(stdin);
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(Error::new(
                "elasticsearch-keystore did not take the password",
            )),
        }
    }

    fn give_away_directory(&self) -> Result<()> {
        match is_root()? {
            true => give_away(self.dir.path()),
            false => Ok(()),
        }
    }
}

fn configure(home: &Path, dir: &Path, port: u16, options: &Options) -> Result<()> {
    for name in ["config", "config/jvm.options.d", "data", "logs", "tmp"] {
        std::fs::create_dir(dir.join(name))?;
    }
    for entry in std::fs::read_dir(home.join("config"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), dir.join("config").join(entry.file_name()))?;
        }
    }
    let mut settings = vec![
        ("cluster.name".to_owned(), "keystone-tests".to_owned()),
        ("node.name".to_owned(), "node-1".to_owned()),
        (
            "path.data".to_owned(),
            dir.join("data").display().to_string(),
        ),
        (
            "path.logs".to_owned(),
            dir.join("logs").display().to_string(),
        ),
        ("network.host".to_owned(), "127.0.0.1".to_owned()),
        ("http.port".to_owned(), port.to_string()),
        ("transport.port".to_owned(), free_port().to_string()),
        ("discovery.type".to_owned(), "single-node".to_owned()),
        (
            "xpack.security.enabled".to_owned(),
            options.password.is_some().to_string(),
        ),
        // A nearly full disk must not make indices read-only in a test.
        (
            "cluster.routing.allocation.disk.threshold_enabled".to_owned(),
            "false".to_owned(),
        ),
    ];
    settings.extend(options.settings.iter().cloned());
    let text: String = settings
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    Ok(std::fs::write(dir.join("config/elasticsearch.yml"), text)?)
}

fn is_root() -> Result<bool> {
    Ok(std::fs::metadata("/proc/self")?.uid() == 0)
}

fn give_away(path: &Path) -> Result<()> {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
    if path.is_dir() {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
        for entry in std::fs::read_dir(path)? {
            give_away(&entry?.path())?;
        }
    }
    Ok(())
}
