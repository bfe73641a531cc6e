use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use keystone_config::{Default as OptionDefault, Kind, OptionSpec, Sources, Table, resolve};

use super::*;
use crate::batch::{BatchBuilder, RecordMeta};

const COMMON: Section = Section {
    title: "Common",
    when: None,
    options: &[
        OptionSpec {
            key: "route.name",
            kind: Kind::Text,
            default: OptionDefault::Value("plays"),
            secret: false,
            doc: "",
            example: "",
        },
        OptionSpec {
            key: "sink.type",
            kind: Kind::Text,
            default: OptionDefault::Value("parquet"),
            secret: false,
            doc: "",
            example: "",
        },
        OptionSpec {
            key: "delivery.tradeoff",
            kind: Kind::Choice(&["low-latency", "balanced", "no-duplicates"]),
            default: OptionDefault::Value("balanced"),
            secret: false,
            doc: "",
            example: "",
        },
    ],
    passthrough: None,
};

use keystone_config::Section;

mod bucket;
mod two_phase;

fn settings(sets: &[&str]) -> Settings {
    let table = Table {
        sections: vec![COMMON, SECTION, hive::SECTION],
    };
    resolve(
        &table,
        &Sources {
            defaults: None,
            file: None,
            env: Vec::new(),
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        },
    )
    .unwrap()
}

fn context() -> Context {
    Context {
        route: "plays".to_owned(),
        worker: "w0".to_owned(),
    }
}

const SCHEMA: &str = "sink.parquet.schema=id bigint, ts timestamp, text string";
const BY_DAY: &str = "sink.parquet.partition.by=dt={ts:%Y-%m-%d}";

/// A sink that publishes each file at once.
fn sink(root: &Path, sets: &[&str]) -> Box<dyn Sink> {
    let mut all = vec!["sink.parquet.publish=direct"];
    all.extend_from_slice(sets);
    sink_of("w0", root, &all)
}

fn sink_of(worker: &str, root: &Path, sets: &[&str]) -> Box<dyn Sink> {
    let location = format!("sink.parquet.location=file://{}", root.display());
    let mut all = vec![location.as_str(), SCHEMA];
    all.extend_from_slice(sets);
    let context = Context {
        worker: worker.to_owned(),
        ..context()
    };
    build(&settings(&all), &context).unwrap()
}

/// A batch of events with these ids on these days of November 2026.
fn batch(id: u64, events: impl IntoIterator<Item = (i64, u32)>) -> Batch {
    let payloads = events.into_iter().map(|(id, day)| {
        format!(r#"{{"id":{id},"ts":"2026-11-{day:02}T10:00:00Z","text":"event number {id} of day {day}"}}"#)
    });
    batch_of(id, payloads)
}

fn batch_of(id: u64, payloads: impl IntoIterator<Item = String>) -> Batch {
    let mut builder = BatchBuilder::default();
    let topic: Arc<str> = Arc::from("t");
    for (offset, payload) in payloads.into_iter().enumerate() {
        let claim = builder.claim(&topic, 0, 1, offset as i64);
        let meta = RecordMeta {
            offset: offset as i64,
            timestamp: None,
            key: None,
        };
        builder.keep(claim, meta, Some(payload.as_bytes()), [].into_iter());
    }
    builder.finish(BatchId::new(id))
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_none_or(|end| end != "lock") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn visible(root: &Path) -> Vec<PathBuf> {
    let mut all = files(root);
    let below = |path: &Path| path.strip_prefix(root).unwrap().to_owned();
    all.retain(|path| {
        let path = below(path);
        let mut names = path.iter().map(|name| name.to_string_lossy());
        !names.any(|name| name.starts_with(['.', '_']))
    });
    all
}

/// Ids in published files, by partition directory.
fn ids(root: &Path) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for path in visible(root) {
        let file = std::fs::File::open(&path).unwrap();
        let reader = ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
            .unwrap()
            .build()
            .unwrap();
        let directory = path.parent().unwrap().strip_prefix(root).unwrap();
        let ids = found.entry(directory.display().to_string()).or_default();
        for rows in reader {
            let rows = rows.unwrap();
            let column = rows.column(0).as_primitive::<arrow::datatypes::Int64Type>();
            ids.extend(column.values().iter());
        }
    }
    found.values_mut().for_each(|ids| ids.sort_unstable());
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_durable_when_all_its_files_are_published() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &[BY_DAY]);
    assert_eq!(sink.flush().await.unwrap(), []);
    let answer = sink
        .deliver(&batch(1, [(1, 1), (2, 2), (3, 1)]))
        .await
        .unwrap();
    assert!(answer.held && answer.durable.is_empty() && answer.rejected.is_empty());
    sink.deliver(&batch(2, [(4, 2)])).await.unwrap();
    assert_eq!(sink.tick().await.unwrap(), []);
    assert_eq!(visible(root.path()), Vec::<PathBuf>::new());
    assert_eq!(files(root.path()).len(), 2);

    let mut durable = sink.flush().await.unwrap();
    durable.sort_unstable();
    assert_eq!(durable, [BatchId::new(1), BatchId::new(2)]);
    assert_eq!(
        ids(root.path()),
        BTreeMap::from([
            ("dt=2026-11-01".to_owned(), vec![1, 3]),
            ("dt=2026-11-02".to_owned(), vec![2, 4]),
        ])
    );
    assert_eq!(files(root.path()).len(), 2);
    assert_eq!(sink.flush().await.unwrap(), []);
    assert_eq!(files(root.path()).len(), 2, "no empty file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_rolls_at_its_rows_and_splits_a_batch() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &["sink.parquet.roll.max.rows=10"]);
    let answer = sink
        .deliver(&batch(1, (0..25).map(|id| (id, 1))))
        .await
        .unwrap();
    assert_eq!(answer.durable, [], "five rows are in an open file");
    assert_eq!(visible(root.path()).len(), 2);
    let answer = sink
        .deliver(&batch(2, (25..30).map(|id| (id, 1))))
        .await
        .unwrap();
    assert_eq!(answer.durable, [BatchId::new(1), BatchId::new(2)]);
    assert_eq!(ids(root.path())[""], (0..30).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_rolls_at_its_size_and_memory_stays_bounded() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(
        root.path(),
        &[
            "sink.parquet.roll.max.bytes=1mb",
            "sink.parquet.compression=none",
            BY_DAY,
        ],
    );
    let text = "x".repeat(900);
    let mut durable = Vec::new();
    for number in 0..20_u64 {
        let payloads = (0..200_u64).map(|i| {
            let id = number * 200 + i;
            format!(
                r#"{{"id":{id},"ts":"2026-11-0{}T10:00:00Z","text":"{id}{text}"}}"#,
                id % 2 + 1
            )
        });
        let answer = sink.deliver(&batch_of(number, payloads)).await.unwrap();
        durable.extend(answer.durable);
    }
    assert!(!durable.is_empty());
    let rolled = visible(root.path());
    assert!(rolled.len() >= 2, "{rolled:?}");
    for path in &rolled {
        let size = path.metadata().unwrap().len();
        assert!((1 << 20..3 << 20).contains(&size), "{size}");
    }
    durable.extend(sink.flush().await.unwrap());
    durable.sort_unstable();
    assert_eq!(durable, (0..20).map(BatchId::new).collect::<Vec<_>>());
    let ids: Vec<i64> = ids(root.path()).into_values().flatten().collect();
    assert_eq!(ids.len(), 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_rolls_at_its_age() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &["sink.parquet.roll.max.age.ms=50"]);
    sink.deliver(&batch(7, [(1, 1)])).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let durable = loop {
        let durable = sink.tick().await.unwrap();
        if !durable.is_empty() {
            break durable;
        }
        assert!(Instant::now() < deadline, "not published");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(durable, [BatchId::new(7)]);
    assert_eq!(ids(root.path())[""], [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_too_many_publishes_the_idle_one() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &["sink.parquet.max.open.files=2", BY_DAY]);
    sink.deliver(&batch(1, [(1, 1)])).await.unwrap();
    sink.deliver(&batch(2, [(2, 2)])).await.unwrap();
    sink.deliver(&batch(3, [(3, 1)])).await.unwrap();
    let answer = sink.deliver(&batch(4, [(4, 3)])).await.unwrap();
    assert_eq!(answer.durable, [BatchId::new(2)]);
    assert_eq!(
        ids(root.path()),
        BTreeMap::from([("dt=2026-11-02".to_owned(), vec![2])])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_abandoned_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &[BY_DAY]);
    sink.deliver(&batch(1, [(1, 1), (2, 2)])).await.unwrap();
    sink.abandon().await;
    assert_eq!(files(root.path()), Vec::<PathBuf>::new());
    assert_eq!(sink.flush().await.unwrap(), []);
    sink.deliver(&batch(2, [(1, 1)])).await.unwrap();
    assert_eq!(sink.flush().await.unwrap(), [BatchId::new(2)]);
    assert_eq!(
        ids(root.path()),
        BTreeMap::from([("dt=2026-11-01".to_owned(), vec![1])])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_a_row_is_not_held() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &[]);
    let payloads = [r#"{"id":"x"}"#.to_owned(), "no json".to_owned()];
    let answer = sink.deliver(&batch_of(1, payloads)).await.unwrap();
    assert!(!answer.held && answer.durable.is_empty());
    assert_eq!(
        answer.rejected.iter().map(|r| r.index).collect::<Vec<_>>(),
        [0, 1]
    );
    assert!(
        answer.rejected[0]
            .reason
            .contains("column id expects bigint, got the string \"x\"")
    );
    assert_eq!(files(root.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_leaves_nothing_and_touches_no_other_file() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("dt=2026-11-01");
    std::fs::create_dir(&directory).unwrap();
    let name = ".plays-w0-18f-000001.parquet.inprogress";
    std::fs::write(directory.join(name), b"PAR1").unwrap();
    let sink = sink(root.path(), &[BY_DAY]);
    sink.check().await.unwrap();
    sink.tick().await.unwrap();
    assert_eq!(files(root.path()), [directory.join(name)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_a_location_that_is_not_there_looks_above_it() {
    let root = tempfile::tempdir().unwrap();
    let location = root.path().join("lake/plays");
    let plays = sink(&location, &[]);
    plays.check().await.unwrap();
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    // Where a directory can't be made, it says so.
    std::fs::write(root.path().join("lake"), b"").unwrap();
    let problem = plays.check().await.unwrap_err();
    assert!(
        problem.contains("sink.parquet.location can't be written") && problem.contains("lake"),
        "{problem}"
    );
    // With the first file it is there.
    std::fs::remove_file(root.path().join("lake")).unwrap();
    plays.deliver(&batch(1, [(1, 1)])).await.unwrap();
    plays.flush().await.unwrap();
    assert_eq!(files(&location).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_error_drops_what_is_held_and_the_sink_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &[BY_DAY]);
    sink.deliver(&batch(1, [(1, 1)])).await.unwrap();
    // The directory of the next partition can't be made.
    std::fs::write(root.path().join("dt=2026-11-02"), b"").unwrap();
    let error = sink.deliver(&batch(2, [(2, 1), (3, 2)])).await.unwrap_err();
    let SinkError::Rewind(cause) = error else {
        panic!("{error:?}")
    };
    assert!(cause.detail.contains("dt=2026-11-02"), "{}", cause.detail);
    assert_eq!(
        sink.flush().await.unwrap(),
        [],
        "nothing of the two batches is left"
    );
    std::fs::remove_file(root.path().join("dt=2026-11-02")).unwrap();
    sink.deliver(&batch(3, [(1, 1), (2, 1), (3, 2)]))
        .await
        .unwrap();
    assert_eq!(sink.flush().await.unwrap(), [BatchId::new(3)]);
    let ids: Vec<i64> = ids(root.path()).into_values().flatten().collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_fails_is_a_rewind() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &[]);
    sink.deliver(&batch(1, [(1, 1)])).await.unwrap();
    for path in files(root.path()) {
        std::fs::remove_file(path).unwrap();
    }
    assert!(matches!(sink.flush().await, Err(SinkError::Rewind(_))));
    assert_eq!(sink.flush().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_deliveries_at_once_lose_nothing() {
    let root = tempfile::tempdir().unwrap();
    let sink = sink(root.path(), &[BY_DAY, "sink.parquet.roll.max.rows=37"]);
    let batches: Vec<Batch> = (0..40)
        .map(|n| batch(n, (0..10).map(|i| (n as i64 * 10 + i, (i % 3) as u32 + 1))))
        .collect();
    let answers = futures::future::join_all(batches.iter().map(|batch| sink.deliver(batch))).await;
    let mut durable: Vec<BatchId> = answers
        .into_iter()
        .flat_map(|a| a.unwrap().durable)
        .collect();
    durable.extend(sink.flush().await.unwrap());
    durable.sort_unstable();
    assert_eq!(durable, (0..40).map(BatchId::new).collect::<Vec<_>>());
    let mut ids: Vec<i64> = ids(root.path()).into_values().flatten().collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..400).collect::<Vec<i64>>());
}

#[test]
fn options_that_do_not_go_together_are_named() {
    let location = "sink.parquet.location=file:///tmp/t";
    for (sets, key, part) in [
        (vec![location], "sink.parquet.schema", "is missing"),
        (
            vec![location, "sink.hive.metastore.uri=thrift://h:9083"],
            "sink.hive.table",
            "is missing",
        ),
        (
            vec![
                location,
                "sink.parquet.schema=Dt string",
                "sink.parquet.partition.by=dt={ts:%Y}",
            ],
            "sink.parquet.partition.by",
            "is a column of sink.parquet.schema, too",
        ),
    ] {
        let problems = build(&settings(&sets), &context()).err().unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, key);
        assert!(problems[0].problem.contains(part), "{problems:?}");
    }
}

#[test]
fn names_of_files_are_safe_and_visible() {
    let context = Context {
        route: "_a/b ü".to_owned(),
        worker: "host:1".to_owned(),
    };
    assert_eq!(options::own_prefix(&context), "a_b__-host_1-");
}
