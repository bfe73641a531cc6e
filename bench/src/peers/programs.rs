//! How each peer is had, and started on its configuration from `bench/peers`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keystone_tests::provision::{self, Recipe};
use keystone_tests::{Doing, Result, free_port, process};

use crate::jobs::Sink;

const COMPILE: Duration = Duration::from_secs(120);
/// Variables that name the binaries of peers which no registry has.
const VECTOR: &str = "PEER_VECTOR";
const REDPANDA_CONNECT: &str = "PEER_REDPANDA_CONNECT";

const CONNECT: Recipe = Recipe {
    name: "kafka-connect-4.3.1",
    dependencies: r#"
<dependency><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId><version>4.3.1</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>connect-mirror</artifactId><version>4.3.1</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.3</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.25.3</version></dependency>"#,
    unpack: |_| Ok(()),
};

/// What the SQL client runs on, without the client.
const FLINK: Recipe = Recipe {
    name: "flink-2.2.1",
    dependencies: r#"
<dependency><groupId>org.apache.flink</groupId><artifactId>flink-clients</artifactId><version>2.2.1</version></dependency>
<dependency><groupId>org.apache.flink</groupId><artifactId>flink-table-api-java-bridge</artifactId><version>2.2.1</version></dependency>
<dependency><groupId>org.apache.flink</groupId><artifactId>flink-table-planner-loader</artifactId><version>2.2.1</version></dependency>
<dependency><groupId>org.apache.flink</groupId><artifactId>flink-table-runtime</artifactId><version>2.2.1</version></dependency>
<dependency><groupId>org.apache.flink</groupId><artifactId>flink-json</artifactId><version>2.2.1</version></dependency>
<dependency><groupId>org.apache.flink</groupId><artifactId>flink-connector-files</artifactId><version>2.2.1</version></dependency>
<dependency><groupId>org.apache.flink</groupId><artifactId>flink-sql-connector-kafka</artifactId><version>5.0.0-2.2</version></dependency>"#,
    unpack: |_| Ok(()),
};

/// What Flink's own start script opens of the JDK.
const FLINK_OPENS: [&str; 8] = [
    "java.base/java.lang=ALL-UNNAMED",
    "java.base/java.lang.reflect=ALL-UNNAMED",
    "java.base/java.net=ALL-UNNAMED",
    "java.base/java.io=ALL-UNNAMED",
    "java.base/java.nio=ALL-UNNAMED",
    "java.base/java.text=ALL-UNNAMED",
    "java.base/java.time=ALL-UNNAMED",
    "java.base/java.util=ALL-UNNAMED",
];

/// What the configurations leave open.
pub(super) struct Place<'a> {
    pub(super) root: &'a Path,
    /// A scratch directory, in which the peer runs.
    pub(super) work: &'a Path,
    pub(super) brokers: String,
    /// `http://host:port`; empty where it is not needed.
    pub(super) elasticsearch: String,
    pub(super) source: &'a str,
    /// The topic or index to deliver to.
    pub(super) out: &'a str,
    pub(super) group: &'a str,
}

/// A peer ready to start, or what is needed to have it.
pub(super) type Ready = Result<Command, String>;

pub(super) fn rsyslog(place: &Place<'_>, sink: Sink) -> Result<Ready> {
    let modules = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
        "/usr/lib64",
    ];
    let module = |name: &str| {
        modules
            .iter()
            .any(|directory| Path::new(directory).join("rsyslog").join(name).exists())
    };
    if !module("imkafka.so") || !module("omelasticsearch.so") {
        return Ok(Err(
            "`tests/setup.sh peers` installs rsyslog with its modules for Kafka and Elasticsearch"
                .to_owned(),
        ));
    }
    let config = filled(place, &format!("rsyslog/{}.conf", short(sink)))?;
    std::fs::create_dir(place.work.join("rsyslog-work"))?;
    let mut command = Command::new("rsyslogd");
    command.args(["-n", "-i"]).arg(place.work.join("pid"));
    command.arg("-f").arg(config);
    Ok(Ok(command))
}

pub(super) fn connect(place: &Place<'_>, sink: Sink) -> Result<Ready> {
    if sink != Sink::Kafka {
        return Ok(Err("needs Aiven's Elasticsearch sink 7.1.0 built from its sources: Maven's registry has no free one".to_owned()));
    }
    let lib = provision::installed(&CONNECT)?.join("lib");
    let classpath = match compiled(place, "connect/FilterProject.java", &lib)? {
        Ok(classpath) => classpath,
        Err(needs) => return Ok(Err(needs)),
    };
    std::fs::create_dir(place.work.join("plugins"))?;
    let mut java = Command::new(provision::java()?);
    // As Kafka's own start script does.
    java.args([
        "-server",
        "-Xms256m",
        "-Xmx2g",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
    ]);
    java.args([
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
    ]);
    java.arg("-cp").arg(classpath);
    java.arg("org.apache.kafka.connect.cli.ConnectStandalone");
    java.arg(filled(place, "connect/worker.properties")?);
    java.arg(filled(place, "connect/k2k.properties")?);
    Ok(Ok(java))
}

pub(super) fn flink(place: &Place<'_>, sink: Sink) -> Result<Ready> {
    if sink != Sink::Kafka {
        return Ok(Err("needs flink-sql-connector-elasticsearch8, which Maven's registry does not have for Flink 2.2".to_owned()));
    }
    let lib = provision::installed(&FLINK)?.join("lib");
    let classpath = match compiled(place, "flink/RunSql.java", &lib)? {
        Ok(classpath) => classpath,
        Err(needs) => return Ok(Err(needs)),
    };
    let mut java = Command::new(provision::java()?);
    java.args(["-Xmx1500m", "-XX:+UseG1GC"]);
    java.args(FLINK_OPENS.map(|opened| format!("--add-opens={opened}")));
    java.arg("-cp").arg(classpath).arg("peers.RunSql");
    java.arg(filled(place, "flink/k2k.sql")?);
    Ok(Ok(java))
}

pub(super) fn vector(place: &Place<'_>, sink: Sink) -> Result<Ready> {
    let Some(program) = given(VECTOR) else {
        return Ok(Err(
            "PEER_VECTOR=<the binary, of its jemalloc build>".to_owned()
        ));
    };
    std::fs::create_dir(place.work.join("vector-data"))?;
    let mut command = Command::new(program);
    command.args(["--threads", "2", "-c"]);
    command.arg(filled(place, &format!("vector/{}.yaml", short(sink)))?);
    command.env("VECTOR_LOG", "warn");
    Ok(Ok(command))
}

pub(super) fn redpanda_connect(place: &Place<'_>, sink: Sink) -> Result<Ready> {
    redpanda(place, &format!("rpconnect/{}.yaml", short(sink)))
}

/// Its faster way, in which the batches of a partition overtake each other.
pub(super) fn redpanda_connect_unordered(place: &Place<'_>, sink: Sink) -> Result<Ready> {
    redpanda(place, &format!("rpconnect/{}-unordered.yaml", short(sink)))
}

fn redpanda(place: &Place<'_>, config: &str) -> Result<Ready> {
    let Some(program) = given(REDPANDA_CONNECT) else {
        return Ok(Err("PEER_REDPANDA_CONNECT=<the binary>".to_owned()));
    };
    let mut command = Command::new(program);
    command.arg("run").arg(filled(place, config)?);
    Ok(Ok(command))
}

/// Its name among the configurations; no peer is run to Parquet, so there is none of that name.
fn short(sink: Sink) -> &'static str {
    match sink {
        Sink::Kafka => "k2k",
        Sink::Elasticsearch => "k2es",
        Sink::Parquet => "k2parquet",
    }
}

/// Whether a variable names the binary of a peer.
pub(crate) fn any_given() -> bool {
    [VECTOR, REDPANDA_CONNECT]
        .iter()
        .any(|variable| given(variable).is_some())
}

/// The binary that a variable names. A peer runs in a directory of its own, so a relative path is made absolute; what is no file here may
/// be a name to be found in `PATH`.
fn given(variable: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|named| !named.is_empty())?;
    let named = PathBuf::from(named);
    match named.is_file() {
        true => Some(std::path::absolute(&named).unwrap_or(named)),
        false => Some(named),
    }
}

/// A configuration with its placeholders filled in, in the scratch directory.
fn filled(place: &Place<'_>, path: &str) -> Result<PathBuf> {
    let template = place.root.join("bench/peers").join(path);
    let text =
        std::fs::read_to_string(&template).doing(format!("reading {}", template.display()))?;
    let (host, port) = place
        .elasticsearch
        .trim_start_matches("http://")
        .rsplit_once(':')
        .unwrap_or_default();
    let offsets = place.work.join("offsets");
    let text = text
        .replace("@BROKERS@", &place.brokers)
        .replace("@ELASTICSEARCH@", &place.elasticsearch)
        .replace("@ELASTICSEARCH_HOST@", host)
        .replace("@ELASTICSEARCH_PORT@", port)
        .replace("@IN@", place.source)
        .replace("@OUT@", place.out)
        .replace("@GROUP@", place.group)
        .replace("@OFFSETS@", &offsets.display().to_string())
        .replace("@REST_PORT@", &free_port().to_string());
    let name = template.file_name().unwrap_or_default();
    let file = place.work.join(name);
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Compiles a class against the jars of `lib`; answers with the class path of both, or with what is needed for that.
fn compiled(place: &Place<'_>, source: &str, lib: &Path) -> Result<Result<String, String>> {
    let javac = provision::java_home()?.join("bin/javac");
    if !javac.exists() {
        return Ok(Err("`tests/setup.sh peers` installs a JDK".to_owned()));
    }
    let (classes, jars) = (place.work.join("classes"), lib.join("*"));
    let mut compile = Command::new(javac);
    compile.arg("-cp").arg(&jars).arg("-d").arg(&classes);
    compile.arg(place.root.join("bench/peers").join(source));
    process::run("javac", &mut compile, COMPILE)
        .doing(format!("compiling bench/peers/{source}"))?;
    Ok(Ok(format!("{}:{}", classes.display(), jars.display())))
}
