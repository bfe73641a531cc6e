//! The jobs as data, and how one of them is run and its delivered set judged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use keystone_tests::elasticsearch::Options;
use keystone_tests::events::{COLUMNS_WITH_TIME, FILTER, PROJECTION, PROJECTION_WITH_TIME};
use keystone_tests::kafka::Isolation;
use keystone_tests::{Elasticsearch, Error, Events, Judge, Kafka, Result, Route, Verdict, Worker};
use tempfile::TempDir;

use crate::duckdb::{self, DuckDb};
use crate::load::{Counted, Load};
use crate::measure::{self, Cost};

/// The topic that every job reads.
pub(crate) const EVENTS: &str = "events";
/// Of each topic, where nothing else is asked for.
pub(crate) const PARTITIONS: i32 = 8;
/// For a worker to drain and end after SIGTERM.
pub(crate) const END: Duration = Duration::from_secs(60);

/// The jobs that the others are compared with, and what the table calls them.
pub(crate) const FLOORS: [(&str, &str); 3] = [
    ("kcat", "`kcat -C`"),
    ("mirror-c", "C mirror"),
    ("duckdb", "DuckDB"),
];

/// Every job, in the order of the table.
pub(crate) const JOBS: [Job; 8] = [
    job("kcat", "`kcat -C`: consume only", Work::Kcat),
    job(
        "mirror-c",
        "C on librdkafka: consume and produce",
        Work::MirrorC,
    ),
    job(
        "kafka",
        "worker: filter and projection to Kafka",
        Work::Project(Sink::Kafka),
    ),
    job("mirror", "worker: mirror to Kafka", Work::Mirror),
    job(
        "elasticsearch",
        "worker: filter and projection to Elasticsearch",
        Work::Project(Sink::Elasticsearch),
    ),
    job(
        "parquet",
        "worker: filter and projection to Parquet",
        Work::Project(Sink::Parquet),
    ),
    job(
        "duckdb",
        "DuckDB: the same from a local NDJSON file to one Parquet file",
        Work::DuckDb,
    ),
    job(
        "duckdb-query",
        "DuckDB: its query alone, without the start of Python",
        Work::DuckDbQuery,
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Kcat,
    MirrorC,
    Mirror,
    /// With filter and projection.
    Project(Sink),
    DuckDb,
    DuckDbQuery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Kafka,
    Elasticsearch,
    Parquet,
}

const fn job(name: &'static str, label: &'static str, work: Work) -> Job {
    Job { name, label, work }
}

impl Job {
    /// Whether this machine can run it.
    pub(crate) fn possible(&self) -> bool {
        self.work != Work::Kcat || Command::new("kcat").arg("-V").output().is_ok()
    }
}

/// The programs that are measured, and the workspace.
pub(crate) struct Programs {
    pub(crate) root: PathBuf,
    pub(crate) worker: PathBuf,
    pub(crate) mirror: PathBuf,
    pub(crate) latency: PathBuf,
}

/// The first `count` of some events, which went through a job.
pub(crate) struct Sent {
    pub(crate) events: Events,
    pub(crate) count: u64,
}

/// The servers with the events, and where a run leaves what it delivers.
pub(crate) struct Bench {
    pub(crate) events: Events,
    pub(crate) programs: Programs,
    pub(crate) kafka: Kafka,
    /// Started for the first job that needs it.
    elasticsearch: Option<Elasticsearch>,
    /// Installed for the first job that needs it.
    duckdb: Option<DuckDb>,
    /// Of Elasticsearch, in each run at full speed.
    pub(crate) loads: Vec<Load>,
}

impl Bench {
    /// Starts Kafka and spreads the events over a topic of so many partitions.
    pub(crate) fn start(events: Events, partitions: i32, programs: Programs) -> Result<Bench> {
        let kafka = Kafka::start_as_shipped()?;
        kafka.create_topic(EVENTS, partitions, &[])?;
        let events = events.partitions(partitions);
        events.produce(&kafka.bootstrap(), EVENTS)?;
        Ok(Bench {
            events,
            programs,
            kafka,
            elasticsearch: None,
            duckdb: None,
            loads: Vec::new(),
        })
    }

    /// Runs a job once. The verdict is `None` where nothing is delivered. `run` is a name that no other run of this bench has: of the
    /// group, and of the topic or index delivered to.
    pub(crate) fn run(&mut self, job: Job, run: &str) -> Result<(Cost, Option<Verdict>)> {
        match job.work {
            Work::Kcat => Ok((self.kcat(EVENTS, self.events.count())?, None)),
            Work::MirrorC => {
                let mut mirror = Command::new(&self.programs.mirror);
                mirror
                    .args([&self.kafka.bootstrap(), EVENTS, run, run])
                    .arg(self.events.count().to_string());
                self.run_topic(run, |_| measure::run(&mut mirror), Self::judge_whole)
            }
            Work::Mirror => {
                let route = format!(
                    "source.format = raw\nsource.null.payload = deliver\nsink.type = kafka\nsink.kafka.topic = {run}\n"
                );
                self.run_topic(run, |bench| bench.worker(run, &route), Self::judge_whole)
            }
            Work::Project(sink) => self.project(sink, run, ""),
            Work::DuckDb => self.duckdb(|run| run.whole),
            Work::DuckDbQuery => self.duckdb(|run| run.query),
        }
    }

    fn duckdb(&mut self, cost: fn(duckdb::Run) -> Cost) -> Result<(Cost, Option<Verdict>)> {
        let duckdb = match self.duckdb.take() {
            Some(duckdb) => duckdb,
            None => DuckDb::prepare(&self.programs.root, &self.events)?,
        };
        let outcome = duckdb.run(&self.events);
        self.duckdb = Some(duckdb);
        let (run, verdict) = outcome?;
        Ok((cost(run), Some(verdict)))
    }

    /// Filter and projection of the whole topic, at full speed; `more` are lines of the route.
    pub(crate) fn project(
        &mut self,
        sink: Sink,
        run: &str,
        more: &str,
    ) -> Result<(Cost, Option<Verdict>)> {
        let ((cost, load), verdict) = self.deliver(sink, run, |bench, route| {
            let sent = Sent {
                events: bench.events.clone(),
                count: bench.events.count(),
            };
            let before = bench.counted(sink)?;
            let cost = bench.worker(run, &(route.to_owned() + more))?;
            let after = bench.counted(sink)?;
            let load = before.zip(after);
            let load = load.map(|(before, after)| before.until(after, cost.wall_seconds));
            Ok(((cost, load), sent))
        })?;
        self.loads.extend(load);
        Ok((cost, Some(verdict)))
    }

    /// Of Elasticsearch, where that is the sink.
    fn counted(&self, sink: Sink) -> Result<Option<Counted>> {
        match sink {
            Sink::Elasticsearch => Counted::of(self.elasticsearch()?).map(Some),
            _ => Ok(None),
        }
    }

    fn run_topic(
        &self,
        topic: &str,
        work: impl FnOnce(&Bench) -> Result<Cost>,
        judge: impl FnOnce(&Bench, &str) -> Result<Verdict>,
    ) -> Result<(Cost, Option<Verdict>)> {
        self.kafka.create_topic(topic, PARTITIONS, &[])?;
        let cost = work(self)?;
        let verdict = judge(self, topic)?;
        self.kafka.delete_topic(topic)?;
        Ok((cost, Some(verdict)))
    }

    /// Has `work` deliver with filter and projection to a fresh place of the sink, given the route's lines for it; `work` answers with what
    /// it found and the events that it sent through. Judges what the place holds then, and removes it.
    pub(crate) fn deliver<T>(
        &mut self,
        sink: Sink,
        run: &str,
        work: impl FnOnce(&Bench, &str) -> Result<(T, Sent)>,
    ) -> Result<(T, Verdict)> {
        match sink {
            Sink::Kafka => self.to_kafka(run, work),
            Sink::Elasticsearch => {
                self.start_elasticsearch()?;
                self.to_elasticsearch(run, work)
            }
            Sink::Parquet => self.to_parquet(work),
        }
    }

    /// Starts Elasticsearch where it does not run yet.
    pub(crate) fn start_elasticsearch(&mut self) -> Result<()> {
        if self.elasticsearch.is_none() {
            self.elasticsearch = Some(Elasticsearch::start(Options::default())?);
        }
        Ok(())
    }

    pub(crate) fn elasticsearch(&self) -> Result<&Elasticsearch> {
        let server = self.elasticsearch.as_ref();
        server.ok_or_else(|| Error::new("Elasticsearch was not started"))
    }

    fn to_kafka<T>(
        &self,
        topic: &str,
        work: impl FnOnce(&Bench, &str) -> Result<(T, Sent)>,
    ) -> Result<(T, Verdict)> {
        self.kafka.create_topic(topic, PARTITIONS, &[])?;
        let route = format!(
            "filter = {FILTER}\nprojection = {PROJECTION}\nsink.type = kafka\nsink.kafka.topic = {topic}\n"
        );
        let (found, sent) = work(self, &route)?;
        let mut judge = Judge::new(sent.events.expected_in(0..sent.count), "event_id");
        judge.topic(&self.kafka, topic, Isolation::ReadCommitted)?;
        self.kafka.delete_topic(topic)?;
        Ok((found, judge.verdict()))
    }

    fn to_elasticsearch<T>(
        &self,
        index: &str,
        work: impl FnOnce(&Bench, &str) -> Result<(T, Sent)>,
    ) -> Result<(T, Verdict)> {
        let server = self.elasticsearch()?;
        let route = format!(
            "filter = {FILTER}\nprojection = {PROJECTION}\nsink.type = elasticsearch\nsink.elasticsearch.urls = {}\n\
             sink.elasticsearch.index = {index}\nsink.elasticsearch.compression = none\n",
            server.url()
        );
        let (found, sent) = work(self, &route)?;
        let mut judge = Judge::new(sent.events.expected_in(0..sent.count), "event_id");
        judge.elasticsearch(server, index)?;
        server.request("DELETE", &format!("/{index}"), None)?;
        Ok((found, judge.verdict()))
    }

    /// To local files; a table partitioned by the hour of the event's time, zstd level 1.
    fn to_parquet<T>(
        &self,
        work: impl FnOnce(&Bench, &str) -> Result<(T, Sent)>,
    ) -> Result<(T, Verdict)> {
        let table: TempDir = tempfile::tempdir()?;
        let route = format!(
            "filter = {FILTER}\nprojection = {PROJECTION_WITH_TIME}\nsink.type = parquet\nsink.parquet.location = file://{}\n\
             sink.parquet.schema = {COLUMNS_WITH_TIME}\nsink.parquet.partition.by = dt={{ts:%Y-%m-%d}}, hour={{ts:%H}}\n\
             sink.parquet.compression = zstd\nsink.parquet.compression.level = 1\n",
            table.path().display()
        );
        let (found, sent) = work(self, &route)?;
        let mut judge = Judge::new(sent.events.expected_with_time_in(0..sent.count), "event_id");
        judge.parquet(table.path())?;
        Ok((found, judge.verdict()))
    }

    fn worker(&self, run: &str, route: &str) -> Result<Cost> {
        let started = Instant::now();
        let worker = self.start_worker(run, EVENTS, route)?;
        consumed(worker, started, self.events.count())
    }

    /// What consuming a topic of `count` records to its end costs at all. It says where each partition ended, which tells what it read.
    pub(crate) fn kcat(&self, topic: &str, count: u64) -> Result<Cost> {
        let mut kcat = Command::new("kcat");
        kcat.args(["-C", "-e", "-o", "beginning", "-t", topic])
            .args(["-b", &self.kafka.bootstrap()]);
        let (cost, said) = measure::run_heard(&mut kcat)?;
        match read_by_kcat(&said) {
            read if read == count => Ok(cost),
            read => Err(Error::new(format!(
                "kcat read {read} of {count} records of {topic}:\n{said}"
            ))),
        }
    }

    pub(crate) fn start_worker(&self, run: &str, topic: &str, route: &str) -> Result<Worker> {
        let source = format!(
            "route.name = {run}\nsource.topics = {topic}\nkafka.bootstrap.servers = {}\n",
            self.kafka.bootstrap()
        );
        Route::new(source + route)
            .program(&self.programs.worker)
            .spawn()
    }

    /// By the record's key, which is the event's id.
    fn judge_whole(&self, topic: &str) -> Result<Verdict> {
        let mut judge = Judge::new(self.events.expected_whole(), "id");
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default());
        let mut broken = 0;
        self.kafka.read(topic, Isolation::ReadCommitted, |record| {
            match (text(record.key), text(record.value)) {
                (Ok(key), Ok(value)) => judge.saw_id(&key, &value),
                _ => broken += 1,
            }
        })?;
        match broken {
            0 => Ok(judge.verdict()),
            _ => Err(Error::new(format!(
                "{broken} records of {topic} are not UTF-8"
            ))),
        }
    }
}

/// What a worker costs from its start to its end after SIGTERM, which it gets when it has consumed so many events.
pub(crate) fn consumed(mut worker: Worker, started: Instant, count: u64) -> Result<Cost> {
    worker.wait_until(measure::RUN, "all events were consumed", |worker| {
        let consumed = worker.metrics()?.sum("keystone_events_consumed_total", &[]);
        Ok(consumed as u64 >= count)
    })?;
    ended(worker, started)
}

/// Ends a worker by SIGTERM; what it cost from its start to its end.
pub(crate) fn ended(mut worker: Worker, started: Instant) -> Result<Cost> {
    worker.sigterm()?;
    let cost = measure::until_ended(worker.pid(), started, END)?;
    ended_well(worker)?;
    Ok(cost)
}

/// How many records kcat read, of partitions that begin at offset 0: the sum of the ends that it tells.
fn read_by_kcat(said: &str) -> u64 {
    let end = |line: &str| {
        let line = line.strip_prefix("% Reached end of topic ")?;
        let (_, end) = line.rsplit_once(" at offset ")?;
        let digits = end.strip_suffix(": exiting").unwrap_or(end);
        digits.trim().parse::<u64>().ok()
    };
    said.lines().filter_map(end).sum()
}

/// Waits for the end of a worker after SIGTERM.
pub(crate) fn ended_well(mut worker: Worker) -> Result<()> {
    let (status, log) = worker.wait_exit(END)?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(format!("the worker failed ({status}):\n{log}"))),
    }
}

/// The jobs of these names, in the order of the table; none means all.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Job>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| JOBS.iter().all(|job| job.name != name.as_str()))
    {
        let known: Vec<&str> = JOBS.iter().map(|job| job.name).collect();
        return Err(Error::new(format!(
            "no job is named {unknown}; the jobs are {}",
            known.join(", ")
        )));
    }
    let wanted = |job: &&Job| names.is_empty() || names.iter().any(|name| name == job.name);
    Ok(JOBS.iter().filter(wanted).copied().collect())
}

/// The target directory of the release profile, with the worker in it.
pub(crate) fn release(root: &Path) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root.join(target).join("release")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kcat_read_is_the_sum_of_the_ends_of_its_partitions() {
        let said = "% Reached end of topic events [3] at offset 125000\n%4|warning\n\
                    % Reached end of topic events [0] at offset 7: exiting\n";
        assert_eq!(read_by_kcat(said), 125_007);
        assert_eq!(read_by_kcat("% ERROR: no broker\n"), 0);
    }
}
