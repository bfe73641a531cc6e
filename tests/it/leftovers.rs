//! What killed workers leave at the location of Parquet files, and what the next ones make of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keystone_tests::events::{COLUMNS_WITH_TIME, PROJECTION_WITH_TIME};
use keystone_tests::proxy::{Mode, Proxy};
use keystone_tests::{Error, Events, Judge, Kafka, Result, Route, S3, Worker, free_port, make_old};

use crate::scenario::{
    LONG_DRAIN, QUICK_SESSION, WORK, all_read, drain, file_url, holds, source, to_parquet, topic_of,
};

/// What a killed worker left hidden is removed by the next one, once it is old; what that one has open itself is not.
#[test]
fn hidden_files_of_a_killed_worker_are_swept() -> Result<()> {
    let kafka = Kafka::shared()?;
    let directory = tempfile::tempdir()?;
    let events = Events::new(16, 20_000);
    topic_of(kafka, "swept-in", &events)?;
    let route = to_parquet(kafka, "swept", "swept-in", &file_url(directory.path())) + LONG_DRAIN;
    let mut first = Worker::spawn(&format!("{route}{QUICK_SESSION}"))?;
    all_read(kafka, "swept-in", &mut [&mut first])?;
    first.wait_until(WORK, "files are open", |_| {
        Ok(!hidden_files(directory.path())?.is_empty())
    })?;
    first.sigkill();
    let left = hidden_files(directory.path())?;
    all_old(&left)?;
    let mut second = Worker::spawn(&route)?;
    second.wait_until(WORK, "they are removed", |_| {
        Ok(!left.iter().any(|path| path.exists()))
    })?;
    all_read(kafka, "swept-in", &mut [&mut second])?;
    drain(second)?;
    nothing_is_left(directory.path(), &events)
}

/// Two workers are killed in their last step, one after its commit and one before it. A sweep takes the files of the second and leaves
/// those of the first, which are published when its partitions have a worker again.
#[test]
fn an_old_manifest_is_swept_only_if_no_commit_names_it() -> Result<()> {
    // The second one's requests can be held back on their way.
    let listener = free_port();
    let proxy = Proxy::to(listener)?;
    let kafka = Kafka::start_behind(listener, proxy.port())?;
    let directory = tempfile::tempdir()?;
    let events = Events::new(18, 20_000);
    kafka.create_topic("in", 8, &[])?;
    // One file of each worker; it ends with the worker only. Static members have their partitions back at once.
    let route = source(&kafka, "orphans", "in")
        + &format!(
            "projection = {PROJECTION_WITH_TIME}\nsink.type = parquet\nsink.parquet.location = {}\n\
             sink.parquet.schema = {COLUMNS_WITH_TIME}\n{LONG_DRAIN}",
            file_url(directory.path())
        );
    let member = |name: &str| Route::new(&route).set("kafka.group.instance.id", name);
    let mut named = member("one").spawn()?;
    let proxied = format!("127.0.0.1:{}", proxy.port());
    // It commits at its end only: a commit on its way when its requests are held back would hold up its last one.
    let mut unnamed = member("two")
        .set("kafka.bootstrap.servers", &proxied)
        .set("delivery.commit.interval.ms", "600000")
        .spawn()?;
    for worker in [&mut named, &mut unnamed] {
        holds(worker, 4)?;
    }
    events.produce(&kafka.bootstrap(), "in")?;
    all_read(&kafka, "in", &mut [&mut named, &mut unnamed])?;
    for worker in [&mut named, &mut unnamed] {
        worker.wait_until(WORK, "its file is open", |worker| {
            Ok(!of(worker, hidden_files(directory.path())?).is_empty())
        })?;
    }
    // Something else has the name of the first one's file, so that it can't be published yet.
    let hidden = of(&named, hidden_files(directory.path())?);
    let [file] = &hidden[..] else {
        panic!("{hidden:?}");
    };
    let in_the_way = published_name(file);
    fs::write(&in_the_way, "in the way")?;
    named.sigterm()?;
    named.wait_until(WORK, "a commit names its manifest", |_| {
        let commits = kafka.commits("orphans", "in")?;
        Ok(commits
            .values()
            .any(|(_, metadata)| metadata.starts_with("keystone:publish:")))
    })?;
    named.sigkill();
    proxy.set(Mode::BlackHole);
    unnamed.sigterm()?;
    unnamed.wait_until(WORK, "its manifest is written", |worker| {
        Ok(!of(worker, manifests(directory.path())?).is_empty())
    })?;
    unnamed.sigkill();
    // What it has asked for never arrives.
    proxy.set(Mode::Refuse);
    let left = |worker: &Worker| -> Result<Vec<PathBuf>> {
        let mut left = hidden_files(directory.path())?;
        left.extend(manifests(directory.path())?);
        Ok(of(worker, left))
    };
    let locks = files(&directory.path().join("_keystone/locks"))?;
    let (kept, swept) = (left(&named)?, left(&unnamed)?);
    assert_eq!((kept.len(), swept.len(), locks.len()), (2, 2, 2));
    all_old(&[&kept[..], &swept, &locks].concat())?;
    let mut second = member("two").spawn()?;
    second.wait_until(WORK, "the sweep is over: it ends with the locks", |_| {
        Ok(!locks.iter().any(|path| path.exists()))
    })?;
    assert_eq!(left(&unnamed)?, Vec::<PathBuf>::new());
    assert_eq!(left(&named)?, kept);
    fs::remove_file(in_the_way)?;
    let mut first = member("one").spawn()?;
    first.wait_until(WORK, "what the commit names is published", |_| {
        Ok(left(&named)?.is_empty())
    })?;
    all_read(&kafka, "in", &mut [&mut first, &mut second])?;
    drain(first)?;
    drain(second)?;
    nothing_is_left(directory.path(), &events)
}

/// A worker is killed when its manifest is in the bucket and nobody has committed it. There are no locks there: the manifest is left alone
/// until it is a month old, then it goes.
#[test]
fn a_manifest_in_a_bucket_is_swept_when_it_is_old() -> Result<()> {
    let (kafka, s3) = (Kafka::shared()?, S3::start()?);
    let proxy = Proxy::to(s3.port())?;
    let events = Events::new(19, 20_000);
    topic_of(kafka, "bucket-orphan-in", &events)?;
    let route = source(kafka, "bucket-orphan", "bucket-orphan-in")
        + &format!(
            "projection = {PROJECTION_WITH_TIME}\nsink.type = parquet\nsink.parquet.location = s3://{}/plays\n\
             sink.parquet.schema = {COLUMNS_WITH_TIME}\n{LONG_DRAIN}",
            S3::BUCKET
        )
        + &S3::properties(&format!("http://127.0.0.1:{}", proxy.port()));
    let manifests = || s3.list("plays/_keystone/bucket-orphan");
    let mut first = Worker::spawn(&format!("{route}{QUICK_SESSION}"))?;
    all_read(kafka, "bucket-orphan-in", &mut [&mut first])?;
    // It hears late that its manifest was written.
    proxy.set(Mode::Delay(Duration::from_secs(8)));
    first.sigterm()?;
    first.wait_until(WORK, "its manifest is written", |_| {
        Ok(!manifests()?.is_empty())
    })?;
    first.sigkill();
    proxy.set(Mode::Pass);
    let left = manifests()?;
    assert_eq!(left.len(), 1);
    let mut second = Worker::spawn(&route)?;
    all_read(kafka, "bucket-orphan-in", &mut [&mut second])?;
    drain(second)?;
    assert_eq!(manifests()?, left);
    s3.make_old("plays/_keystone", Duration::from_secs(31 * 24 * 60 * 60))?;
    let mut third = Worker::spawn(&route)?;
    third.wait_until(WORK, "the manifest is removed", |_| {
        Ok(manifests()?.is_empty())
    })?;
    drain(third)?;
    let mut judge = Judge::new(events.expected_with_time(), "event_id");
    judge.parquet_s3(&s3, "plays/")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// Uploads that no manifest lists: of a month ago, those of our files are aborted; others, and what a manifest lists, are left alone. (This
/// server says of every upload that it was begun just now; the proxy puts that a century back.)
#[test]
fn an_upload_that_no_manifest_lists_is_aborted_when_it_is_old() -> Result<()> {
    let (kafka, s3) = (Kafka::shared()?, S3::start()?);
    let proxy = Proxy::to(s3.port())?;
    let events = Events::new(23, 2_000);
    topic_of(kafka, "lost-upload-in", &events)?;
    let route = source(kafka, "lost-upload", "lost-upload-in")
        + &format!(
            "projection = {PROJECTION_WITH_TIME}\nsink.type = parquet\nsink.parquet.location = s3://{}/plays\n\
             sink.parquet.schema = {COLUMNS_WITH_TIME}\nlog.level = debug\n{LONG_DRAIN}",
            S3::BUCKET
        )
        + &S3::properties(&format!("http://127.0.0.1:{}", proxy.port()));
    let [lost, listed, other, elsewhere] = [
        "plays/day=1/lost-upload-gone-19abcdef012-000000.parquet",
        "plays/day=1/another-gone-19abcdef012-000000.parquet",
        "plays/day=1/part-00000-of-somebody-else.parquet",
        "plays/of_another_table/day=1/lost-upload-gone-19abcdef012-000000.parquet",
    ];
    let lost = s3.begin_upload(lost)?;
    let listed = s3.begin_upload(listed)?;
    let other = s3.begin_upload(other)?;
    let elsewhere = s3.begin_upload(elsewhere)?;
    let manifest = format!(
        r#"{{"files":[{{"partition":"day=1","name":"another-gone-19abcdef012-000000.parquet","rows":1,"bytes":2000,"why":"age","upload":{{"id":"{}","parts":["1"]}}}}],"source":{{"group":"another","partitions":[["t",0]]}}}}"#,
        listed
    );
    s3.put(
        "plays/_keystone/another/another-gone-19abcdef012-000000.json",
        manifest,
    )?;
    let work = || {
        let mut worker = Worker::spawn(&route)?;
        all_read(kafka, "lost-upload-in", &mut [&mut worker])?;
        Ok::<_, Error>(worker)
    };
    let mut young = work()?;
    let seen = "uploads were looked through";
    young.wait_until(WORK, seen, |worker| Ok(worker.stderr().contains(seen)))?;
    drain(young)?;
    for upload in [&lost, &listed, &other, &elsewhere] {
        assert!(s3.is_open(upload), "an upload that was young is gone");
    }
    proxy.set(Mode::Rewrite("<Initiated>20", "<Initiated>19"));
    let mut old = work()?;
    old.wait_until(WORK, "the upload is aborted", |_| Ok(!s3.is_open(&lost)))?;
    drain(old)?;
    for upload in [&listed, &other, &elsewhere] {
        assert!(s3.is_open(upload), "an upload that is no orphan is gone");
    }
    let mut judge = Judge::new(events.expected_with_time(), "event_id");
    judge.parquet_s3(&s3, "plays/")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// No file is hidden, and each event is there once.
fn nothing_is_left(directory: &Path, events: &Events) -> Result<()> {
    assert_eq!(hidden_files(directory)?, Vec::<PathBuf>::new());
    let mut judge = Judge::new(events.expected_with_time(), "event_id");
    judge.parquet(directory)?;
    judge.verdict().assert_exact();
    Ok(())
}

/// Those that this worker has written: its process is part of their names.
fn of(worker: &Worker, paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let process = format!("-{}-", worker.pid());
    let mut paths = paths;
    paths.retain(|path| path.to_string_lossy().contains(&process));
    paths
}

fn manifests(location: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files(&location.join("_keystone/orphans"))?;
    found.retain(|path| path.extension().is_some_and(|end| end == "json"));
    Ok(found)
}

/// The files of a directory; none where it is not there.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory)?;
    Ok(entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?)
}

/// The name that a hidden file gets.
fn published_name(hidden: &Path) -> PathBuf {
    let name = hidden.file_stem().unwrap_or_default().to_string_lossy();
    hidden.with_file_name(name.trim_start_matches('.'))
}

/// Old enough to be removed.
fn all_old(paths: &[PathBuf]) -> Result<()> {
    let day = Duration::from_secs(24 * 60 * 60);
    paths
        .iter()
        .try_for_each(|path| make_old(path, day + day / 24))
}

/// Files that are being written, or wait for a commit.
fn hidden_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(hidden_files(&path)?),
            false if path.extension().is_some_and(|end| end == "inprogress") => found.push(path),
            false => {}
        }
    }
    Ok(found)
}
