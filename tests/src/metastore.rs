//! A real Hive Metastore on an embedded Derby database.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use hive_metastore::{
    FieldSchema, GetTableRequest, Partition, SerDeInfo, StorageDescriptor, Table,
    ThriftHiveMetastoreClient, ThriftHiveMetastoreClientBuilder,
};
use tempfile::TempDir;
use volo_thrift::MaybeException;

use crate::process::{self, LOG4J, Process};
use crate::{Doing, Error, Result, block_on, free_port, provision};

const READY: Duration = Duration::from_secs(120);
const SCHEMA: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(15);
const REQUEST: Duration = Duration::from_secs(30);

/// What Hive's own library complains of all the time.
const QUIET: &str = "\
logger.datanucleus.name = DataNucleus
logger.datanucleus.level = ERROR
";

const OPENED: [&str; 5] = [
    "java.lang",
    "java.net",
    "java.util",
    "java.util.concurrent",
    "java.nio",
];

/// A metastore of its own. Ended, and its database removed, when dropped. (The warehouse is the caller's.)
pub struct Metastore {
    process: Option<Process>,
    port: u16,
    dir: TempDir,
    home: PathBuf,
}

/// A table as the metastore has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    pub location: String,
    /// Name and Hive type.
    pub columns: Vec<(String, String)>,
    /// Name and Hive type.
    pub partition_keys: Vec<(String, String)>,
    pub serde: String,
    pub input_format: String,
    /// For example `EXTERNAL_TABLE`.
    pub table_type: String,
}

/// A partition as the metastore has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionInfo {
    pub values: Vec<String>,
    pub location: String,
}

impl Metastore {
    /// A private metastore with an empty database, ready.
    pub fn start(warehouse: &Path) -> Result<Metastore> {
        let home = provision::metastore()?;
        let dir = tempfile::Builder::new()
            .prefix("keystone-metastore-")
            .tempdir()?;
        let port = free_port();
        std::fs::create_dir(dir.path().join("conf"))?;
        std::fs::write(
            dir.path().join("conf/metastore-site.xml"),
            site(dir.path(), warehouse, port),
        )?;
        std::fs::write(
            dir.path().join("log4j2.properties"),
            format!("{LOG4J}{QUIET}"),
        )?;
        let mut metastore = Metastore {
            process: None,
            port,
            dir,
            home,
        };
        let mut tool = metastore
            .java("org.apache.hadoop.hive.metastore.tools.schematool.MetastoreSchemaTool")?;
        process::run(
            "Hive's schema tool",
            tool.args(["-dbType", "derby", "-initSchema"]),
            SCHEMA,
        )?;
        metastore.restart()?;
        Ok(metastore)
    }

    /// The metastore that all tests of this process share. Use databases or tables of your own, with locations of your own.
    pub fn shared() -> Result<&'static Metastore> {
        static SHARED: OnceLock<Result<Metastore, String>> = OnceLock::new();
        let start = || {
            Metastore::start(&std::env::temp_dir().join("keystone-warehouse"))
                .map_err(|error| error.to_string())
        };
        SHARED.get_or_init(start).as_ref().map_err(Error::new)
    }

    /// `thrift://127.0.0.1:port`.
    pub fn uri(&self) -> String {
        format!("thrift://127.0.0.1:{}", self.port)
    }

    /// Ends it. (SIGTERM; its database survives.)
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(GRACE);
        }
    }

    /// Starts it with the same database on the same port (stopping it first where it runs) and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = self.java("org.apache.hadoop.hive.metastore.HiveMetaStore")?;
        command.args(["-p", &self.port.to_string()]);
        let log = self.dir.path().join("metastore.log");
        let mut process =
            Process::spawn("Hive Metastore", &mut command, &log, Some(self.dir.path()))?;
        process.wait_ready(READY, || self.databases().map(drop))?;
        self.process = Some(process);
        Ok(())
    }

    pub fn databases(&self) -> Result<Vec<String>> {
        let names = plain(
            block_on(self.client().get_all_databases()),
            "asking for the databases",
        )?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// Creates an external Parquet table. Columns and partition keys are pairs of name and Hive type.
    pub fn create_table(
        &self,
        database: &str,
        table: &str,
        location: &str,
        columns: &[(&str, &str)],
        partition_keys: &[(&str, &str)],
    ) -> Result<()> {
        let serde = SerDeInfo {
            serialization_lib: text("org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"),
            ..Default::default()
        };
        let storage = StorageDescriptor {
            cols: Some(fields(columns)),
            location: text(location),
            input_format: text("org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"),
            output_format: text("org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"),
            serde_info: Some(serde),
            ..Default::default()
        };
        let table = Table {
            table_name: text(table),
            db_name: text(database),
            sd: Some(storage),
            partition_keys: Some(fields(partition_keys)),
            table_type: text("EXTERNAL_TABLE"),
            parameters: Some([("EXTERNAL".into(), "TRUE".into())].into_iter().collect()),
            ..Default::default()
        };
        plain(
            block_on(self.client().create_table(table)),
            "creating a table",
        )
    }

    /// The table, or an error that says it does not exist.
    pub fn table(&self, database: &str, table: &str) -> Result<TableInfo> {
        let request = GetTableRequest {
            db_name: owned(database),
            tbl_name: owned(table),
            capabilities: None,
        };
        let what = format!("asking for the table {database}.{table}");
        let found = plain(block_on(self.client().get_table_req(request)), &what)?.table;
        let storage = found.sd.unwrap_or_default();
        Ok(TableInfo {
            location: plain_text(storage.location),
            columns: pairs(storage.cols),
            partition_keys: pairs(found.partition_keys),
            serde: plain_text(storage.serde_info.unwrap_or_default().serialization_lib),
            input_format: plain_text(storage.input_format),
            table_type: plain_text(found.table_type),
        })
    }

    /// All partitions of a table, sorted.
    pub fn partitions(&self, database: &str, table: &str) -> Result<Vec<PartitionInfo>> {
        let found: Vec<Partition> = plain(
            block_on(
                self.client()
                    .get_partitions(owned(database), owned(table), -1),
            ),
            &format!("asking for the partitions of {database}.{table}"),
        )?;
        let info = |partition: Partition| PartitionInfo {
            values: partition
                .values
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect(),
            location: plain_text(partition.sd.unwrap_or_default().location),
        };
        let mut partitions: Vec<PartitionInfo> = found.into_iter().map(info).collect();
        partitions.sort();
        Ok(partitions)
    }

    /// The thrift client, for what the methods here do not cover.
    pub fn client(&self) -> ThriftHiveMetastoreClient {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.port));
        // The metastore speaks the plain binary protocol, without frames.
        let builder = ThriftHiveMetastoreClientBuilder::new("hive-metastore")
            .make_codec(volo_thrift::codec::default::DefaultMakeCodec::buffered())
            .rpc_timeout(Some(REQUEST))
            .connect_timeout(Some(Duration::from_secs(2)))
            .read_write_timeout(Some(REQUEST))
            .address(address);
        // Its connection pool wants a runtime around it.
        block_on(async move { builder.build() })
    }

    fn java(&self, class: &str) -> Result<Command> {
        let mut command = Command::new(provision::java()?);
        command.arg("-Xmx512m");
        command.args(OPENED.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
        command.arg(format!(
            "-Dlog4j2.configurationFile={}",
            self.dir.path().join("log4j2.properties").display()
        ));
        let conf = self.dir.path().join("conf");
        command
            .arg("-cp")
            .arg(format!(
                "{}:{}",
                conf.display(),
                self.home.join("lib/*").display()
            ))
            .arg(class);
        command
            .env("METASTORE_HOME", self.home.join("home"))
            .env("METASTORE_CONF_DIR", conf)
            .current_dir(self.dir.path());
        Ok(command)
    }
}

fn site(dir: &Path, warehouse: &Path, port: u16) -> String {
    let database = format!(
        "jdbc:derby:;databaseName={};create=true",
        dir.join("database").display()
    );
    let properties = [
        ("javax.jdo.option.ConnectionURL", database),
        (
            "javax.jdo.option.ConnectionDriverName",
            "org.apache.derby.jdbc.EmbeddedDriver".to_owned(),
        ),
        (
            "metastore.warehouse.dir",
            format!("file://{}", warehouse.display()),
        ),
        (
            "metastore.thrift.uris",
            format!("thrift://127.0.0.1:{port}"),
        ),
        ("metastore.thrift.bind.host", "127.0.0.1".to_owned()),
        (
            "metastore.expression.proxy",
            "org.apache.hadoop.hive.metastore.DefaultPartitionExpressionProxy".to_owned(),
        ),
        (
            "metastore.task.threads.always",
            "org.apache.hadoop.hive.metastore.events.EventCleanerTask".to_owned(),
        ),
        // Needs a library that the server does not bring.
        ("metastore.async.log.enabled", "false".to_owned()),
    ];
    let property = |(name, value): (&str, String)| {
        format!("<property><name>{name}</name><value>{value}</value></property>\n")
    };
    let properties: String = properties.into_iter().map(property).collect();
    format!("<configuration>\n{properties}</configuration>\n")
}

/// Unpacks an answer; an exception of the metastore is an error with its text.
fn plain<T, X: std::fmt::Debug>(
    answer: std::result::Result<MaybeException<T, X>, volo_thrift::ClientError>,
    what: &str,
) -> Result<T> {
    match answer.doing(what)? {
        MaybeException::Ok(answer) => Ok(answer),
        MaybeException::Exception(exception) => Err(Error::new(format!(
            "{what}: the metastore answered {exception:?}"
        ))),
    }
}

fn owned(value: &str) -> pilota::FastStr {
    pilota::FastStr::new(value)
}

fn text(value: &str) -> Option<pilota::FastStr> {
    Some(owned(value))
}

fn plain_text(value: Option<pilota::FastStr>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn fields(columns: &[(&str, &str)]) -> Vec<FieldSchema> {
    columns
        .iter()
        .map(|(name, kind)| FieldSchema {
            name: text(name),
            r#type: text(kind),
            comment: None,
        })
        .collect()
}

fn pairs(fields: Option<Vec<FieldSchema>>) -> Vec<(String, String)> {
    fields
        .unwrap_or_default()
        .into_iter()
        .map(|field| (plain_text(field.name), plain_text(field.r#type)))
        .collect()
}
