use std::collections::BTreeSet;

use proptest::prelude::*;

use super::options::{address, check_uris};
use super::pending::{CHUNK, MOST_REFUSED};
use super::*;
use crate::parquet::partition::Partitioning;
use crate::parquet::schema::parse_columns;

pub(super) mod metastore;

use metastore::Metastore;

fn found(columns: &[(&str, &str)], keys: &[&str]) -> Found {
    let own = |(name, kind): &(&str, &str)| ((*name).to_owned(), (*kind).to_owned());
    Found {
        columns: columns.iter().map(own).collect(),
        partition_keys: keys
            .iter()
            .map(|key| ((*key).to_owned(), "string".to_owned()))
            .collect(),
        location: "file:/t".to_owned(),
        input_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat".to_owned(),
        created: 1,
    }
}

#[test]
fn a_table_that_does_not_fit_is_explained_by_column() {
    let columns = parse_columns("Id string, n bigint, s struct<A:int>").unwrap();
    let keys = Partitioning::parse("Dt={ts:%Y}").unwrap();
    let fits = found(
        &[
            ("n", "bigint"),
            ("id", "string"),
            ("s", "struct<a:int>"),
            ("more", "int"),
        ],
        &["dt"],
    );
    assert_eq!(
        differences(&fits, &columns, &keys, "file:///t"),
        Vec::<String>::new()
    );
    let other = found(&[("id", "int"), ("s", "struct<a:int>")], &["hour"]);
    assert_eq!(
        differences(&other, &columns, &keys, "file:///t"),
        [
            "column id is int in the table, but string in sink.parquet.schema",
            "column n is not in the table",
            "the table is partitioned by (hour), but sink.parquet.partition.by gives (dt)",
        ]
    );
}

#[test]
fn a_partition_column_that_may_get_other_values_is_a_problem() {
    let problems = |key: &str, kind: &str| {
        let mut table = found(&[], &["k"]);
        table.partition_keys[0].1 = kind.to_owned();
        differences(&table, &[], &Partitioning::parse(key).unwrap(), "file:///t")
    };
    for (key, kind) in [
        ("k", "string"),
        ("k", "varchar(10)"),
        ("k=a-{k}", "char(3)"),
        ("k={ts:%Y-%m-%d}", "date"),
        ("k={ts:%F}", "date"),
        ("k={ts:%Y}", "int"),
        ("k={ts:%Y}", "smallint"),
        ("k={ts:%-H}", "tinyint"),
        ("k={ts:%-d}", "int"),
        ("k={ts:%-m}", "bigint"),
        ("k={ts:%s}", "bigint"),
        ("k", "STRING"),
        ("k", "Varchar(10)"),
        ("k={ts:%F}", "DATE"),
        ("k={ts:%Y}", "integer"),
    ] {
        assert_eq!(problems(key, kind), Vec::<String>::new(), "{key} {kind}");
    }
    for (key, kind) in [
        ("k", "date"),
        ("k", "int"),
        ("k", "boolean"),
        ("k", "decimal(5,2)"),
        ("k={ts:%Y-%m}", "date"),
        ("k={ts:%Y-%m-%d}", "timestamp"),
        ("k=x{ts:%Y-%m-%d}", "date"),
        ("k={ts:%Y}{ts:%m}", "int"),
        // Hive's own name of such a partition is k=7, not k=07.
        ("k={ts:%H}", "int"),
        ("k={ts:%Y}", "tinyint"),
        ("k={ts:%s}", "int"),
        ("k", "INTEGER"),
    ] {
        assert_eq!(problems(key, kind).len(), 1, "{key} {kind}");
    }
    assert_eq!(
        problems("k", "date"),
        [
            "partition column k is date in the table, and what sink.parquet.partition.by gives for it may be none: declare it as string (ALTER TABLE … PARTITION COLUMN (k string)), or make it of a time, as `k={ts:%Y-%m-%d}` does"
        ]
    );
    let problem = &problems("k", "Integer")[0];
    assert!(
        problem.contains("is Integer in") && problem.contains("{ts:%-H}"),
        "{problem}"
    );
}

#[test]
fn a_table_without_partitions_has_its_files_where_the_route_writes_them() {
    let problems = |there: &str, ours: &str| {
        let mut table = found(&[], &[]);
        table.location = there.to_owned();
        differences(&table, &[], &Partitioning::default(), ours)
    };
    for (there, ours) in [
        ("file:/t", "file:///t"),
        ("s3a://lake/plays/", "s3://lake/plays"),
        ("s3n://lake//plays", "s3://lake/plays"),
        ("hdfs://name:8020/t", "hdfs://name:8020/t"),
    ] {
        assert_eq!(problems(there, ours), Vec::<String>::new(), "{there}");
    }
    for (there, ours) in [
        ("file:/warehouse/t", "file:///t"),
        ("s3a://lake/plays2", "s3://lake/plays"),
        ("s3a://other/plays", "s3://lake/plays"),
        ("hdfs://name:8020/t", "file:///t"),
    ] {
        let problems = problems(there, ours);
        assert!(problems[0].contains(there) && problems[0].contains("sink.hive.location"));
    }
    // A partition brings its own.
    let keys = Partitioning::parse("dt={ts:%F}").unwrap();
    let table = found(&[], &["dt"]);
    assert_eq!(
        differences(&table, &[], &keys, "s3://lake/plays"),
        Vec::<String>::new()
    );
}

#[test]
fn addresses_are_read_and_mistakes_named() {
    assert_eq!(address("thrift://h:1234").unwrap(), "h:1234");
    assert_eq!(address(" thrift://h/ ").unwrap(), "h:9083");
    for bad in [
        "h:9083",
        "thrift://",
        "thrift://h:x",
        "thrift://h:0",
        "http://h:1",
    ] {
        assert!(address(bad).is_err(), "{bad}");
    }
    assert!(check_uris("thrift://a:1, thrift://b:2").is_ok());
    assert!(check_uris("thrift://a:1,").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metastore_that_is_down_is_a_problem_and_holds_nothing_up() {
    let place = Place {
        // A port that nothing listens on, and no other test is given.
        addresses: client::Addresses::new(vec!["127.0.0.1:1".to_owned()]),
        database: "default".to_owned(),
        table: "t".to_owned(),
        location: "file:///t".to_owned(),
    };
    let root = tempfile::tempdir().unwrap();
    let store = Store::Local {
        root: root.path().to_owned(),
    };
    let partitioning = Partitioning::parse("dt={ts:%Y}").unwrap();
    let columns = parse_columns("id string").unwrap();
    let layout = Arc::new(crate::parquet::rows::Layout::new(columns, partitioning));
    let hive = Hive::new(place, store);
    assert!(matches!(
        hive.check(&layout).await,
        Err(CheckError::Unreachable(_))
    ));
    hive.start(&layout);
    hive.published("dt=2026");
    hive.published("dt=2026");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while hive.problems().is_none() {
        assert!(std::time::Instant::now() < deadline, "no problem told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let problem = hive.problems().unwrap();
    assert!(problem.contains("127.0.0.1:1: "), "{problem}");
    assert!(problem.contains("1 partition(s) wait"), "{problem}");
    assert!(!hive.idle());
}

/// The registration in this metastore of a table with the key `dt` and no columns, with files below this place.
fn hive_of(metastore: &Metastore, root: &std::path::Path) -> (Hive, SharedLayout) {
    let place = Place {
        addresses: client::Addresses::new(vec![metastore.address.clone()]),
        database: "default".to_owned(),
        table: "t".to_owned(),
        location: "file:///t".to_owned(),
    };
    let store = Store::Local {
        root: root.to_owned(),
    };
    let partitioning = Partitioning::parse("dt={ts:%Y}").unwrap();
    let layout = crate::parquet::rows::Layout::new(Vec::new(), partitioning);
    (Hive::new(place, store), Arc::new(layout))
}

async fn soon(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_that_is_noted_late_is_withdrawn_where_the_metastore_is_well() {
    let metastore = Metastore::start("dt").await;
    let root = tempfile::tempdir().unwrap();
    let (hive, layout) = hive_of(&metastore, root.path());
    hive.start(&layout);
    soon("there is no good round", || hive.idle()).await;
    // Where it is not, the task comes to the same, and no faster than its pauses let it.
    metastore.holds().is_ill = true;
    let asked = metastore.holds().asked;
    hive.note("it did not answer".to_owned());
    let is_told = || {
        hive.problems()
            .is_some_and(|problem| problem.contains("ill"))
    };
    soon("the task did not look", is_told).await;
    hive.note("it did not answer".to_owned());
    tokio::time::sleep(FIRST_PAUSE * 3 / 2).await;
    let asked = metastore.holds().asked - asked;
    assert!(asked < 10, "{asked} times");
    metastore.holds().is_ill = false;
    soon("it stays", || hive.problems().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_anew_gets_all_partitions_with_the_next_one() {
    let metastore = Metastore::start("dt").await;
    let root = tempfile::tempdir().unwrap();
    let publish = |hive: &Hive, partition: &str| {
        let directory = root.path().join(partition);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("a.parquet"), b"").unwrap();
        hive.published(partition);
    };
    let (hive, layout) = hive_of(&metastore, root.path());
    publish(&hive, "dt=2025");
    publish(&hive, "dt=2026");
    hive.start(&layout);
    soon("they are not registered", || hive.idle()).await;
    assert_eq!(metastore.holds().added, ["dt=2026", "dt=2025"]);
    metastore.holds().added.clear();
    publish(&hive, "dt=2027");
    soon("it is not registered", || hive.idle()).await;
    assert_eq!(metastore.holds().added, ["dt=2027"], "it is the same table");
    metastore.holds().added.clear();
    metastore.holds().table.create_time = Some(2);
    publish(&hive, "dt=2028");
    let are_all_added = || {
        let mut added = metastore.holds().added.clone();
        added.sort();
        added == ["dt=2025", "dt=2026", "dt=2027", "dt=2028"]
    };
    soon("they are not registered again", are_all_added).await;
}

/// A worker that is unready for it would let no roll-out pass, and the fix with it.
#[test]
fn a_refused_partition_is_no_problem_but_a_metastore_that_is_away_is_one() {
    let (mut state, now) = (State::default(), Instant::now());
    let away = || Some(RoundError::Call(CallError::Unreachable("away".to_owned())));
    let refused = || Some(RoundError::Refused("no".to_owned()));
    // The check at the start has found out before: the log is told all the same.
    state.problem = Some("away".to_owned());
    let told = |text: &str| Some(text.to_owned());
    assert_eq!(state.end_round(away(), now), (false, told("away")));
    assert_eq!(state.end_round(away(), now), (false, None), "just told");
    let later = now + Duration::from_secs(30);
    assert_eq!(state.end_round(away(), later), (false, told("away")));
    assert_eq!(state.end_round(refused(), later), (true, told("no")));
    assert_eq!(
        (&state.problem, state.refusal.as_deref()),
        (&None, Some("no"))
    );
    assert_eq!(state.end_round(refused(), later), (false, None));
    // A table that can't be used is a problem, though the metastore answers.
    let denied = CallError::Refused("get_table: denied".to_owned());
    for error in [
        RoundError::Call(denied),
        RoundError::Other("does not fit".to_owned()),
    ] {
        assert!(state.end_round(Some(error), later).1.is_some());
        assert!(state.problem.is_some());
    }
    assert_eq!(state.refusal.as_deref(), Some("no"), "it is refused still");
    assert_eq!(state.end_round(None, later), (true, None));
    assert_eq!((&state.problem, &state.refusal), (&None, &None));
    assert_eq!(state.end_round(None, later), (false, None), "told once");
}

#[test]
fn at_the_end_it_is_told_what_was_not_registered() {
    let mut state = State::default();
    assert_eq!(state.left(), None);
    state.publish("dt=1");
    state.publish("dt=2");
    let left = state.left().unwrap();
    assert!(
        left.starts_with("2 partition(s) were not registered: "),
        "{left}"
    );
    state.problem = Some("away".to_owned());
    let left = state.left().unwrap();
    assert!(
        left.contains("not registered (away)") && left.contains("the next worker"),
        "{left}"
    );
}

/// Partitions whose names begin so, numbered.
fn names(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers
        .map(|number| format!("{prefix}{number:06}"))
        .collect()
}

fn pending_with(partitions: &[String]) -> Pending {
    let mut pending = Pending::default();
    for partition in partitions {
        assert!(pending.publish(partition));
    }
    pending
}

/// Plays one round as the task does, with a metastore that refuses some and a location that holds these. Answers with the number of calls
/// and of listings.
fn play(
    pending: &mut Pending,
    is_refused: &dyn Fn(&str) -> bool,
    location: &[String],
) -> (usize, usize) {
    let (mut calls, mut listings) = (0, 0);
    pending.begin_round();
    loop {
        assert!(
            calls < 100_000 && listings < 1_000,
            "the round does not end"
        );
        match pending.next() {
            Next::Add(chunk) => {
                assert!(!chunk.is_empty() && chunk.len() <= CHUNK);
                calls += 1;
                let is_split = chunk.iter().any(|partition| is_refused(partition));
                for partition in chunk {
                    calls += usize::from(is_split);
                    match is_refused(&partition) {
                        true => pending.set_aside(partition, "no".to_owned()),
                        false => pending.registered(partition),
                    }
                }
            }
            Next::List => {
                listings += 1;
                pending.begin_list();
                location
                    .iter()
                    .cloned()
                    .for_each(|path| pending.found(path));
            }
            Next::End => return (calls, listings),
        }
    }
}

#[test]
fn a_refused_partition_holds_up_no_other_and_is_tried_after_them() {
    let mut pending = pending_with(&names("dt=", 0..250));
    // The greatest is in the first chunk of a round.
    let bad = |partition: &str| partition == "dt=000249" || partition == "dt=000003";
    assert_eq!(play(&mut pending, &bad, &[]).0, 3 + 100 + 50);
    assert_eq!((pending.len(), pending.refused()), (2, 2));
    let refusal = pending.refusal().unwrap();
    assert!(
        refusal.contains("partition dt=000249 was refused, and 1 more (no)"),
        "{refusal}"
    );
    assert!(!pending.is_done());
    // It waits already.
    assert!(!pending.publish("dt=000249"));
    assert!(pending.publish("dt=000001a"));
    pending.begin_round();
    assert_eq!(pending.next(), Next::Add(vec!["dt=000001a".to_owned()]));
    pending.registered("dt=000001a".to_owned());
    let refused = ["dt=000249".to_owned(), "dt=000003".to_owned()];
    assert_eq!(pending.next(), Next::Add(refused.to_vec()));
    // The metastore takes them now, and the problem is gone.
    play(&mut pending, &|_| false, &[]);
    assert!(pending.is_done());
    assert_eq!((pending.refused(), pending.refusal()), (0, None));
    assert!(!pending.publish("dt=000249"), "it is registered");
}

#[test]
fn a_metastore_that_refuses_all_is_not_asked_without_end() {
    let mut pending = pending_with(&names("dt=", 0..3_000));
    let (calls, _) = play(&mut pending, &|_| true, &[]);
    assert_eq!(calls, MOST_REFUSED + MOST_REFUSED / CHUNK);
    assert_eq!(pending.len(), 3_000);
    // Those that were not asked for yet are next, and none is forgotten.
    let asked = |partition: &str| partition >= "dt=002000";
    play(&mut pending, &asked, &[]);
    assert_eq!(pending.len(), 1_000);
}

/// The list is full: the location has the rest, and it is listed once when nothing else waits.
#[test]
fn what_there_was_no_room_for_is_listed_and_the_round_ends() {
    let all = names("dt=", 0..MAX_PENDING + 5);
    let mut pending = pending_with(&all[..MAX_PENDING]);
    assert!(!pending.publish(&all[0]), "it waits already");
    assert!(!pending.list);
    assert!(pending.publish(&all[MAX_PENDING]));
    assert!(pending.list);
    let newest = &all[5..];
    let (calls, listings) = play(&mut pending, &|_| false, newest);
    assert_eq!((calls, listings), (MAX_PENDING / CHUNK + 1, 1));
    assert!(pending.is_done());

    // Nothing is left, and the listing brings nothing.
    pending.list = true;
    assert_eq!(play(&mut pending, &|_| false, &[]), (0, 1));
    assert!(pending.is_done());
}

/// Refused partitions fill the list: what is published later is found by listing, once a round.
#[test]
fn a_list_full_of_refused_ones_leaves_room_for_others() {
    let bad = names("bad=", 0..MAX_PENDING);
    let mut pending = pending_with(&bad);
    let is_bad = |partition: &str| partition.starts_with("bad=");
    for _ in 0..MAX_PENDING / MOST_REFUSED {
        play(&mut pending, &is_bad, &[]);
    }
    assert_eq!(pending.len(), MAX_PENDING);
    assert!(pending.publish("dt=1"));
    pending.begin_round();
    assert_eq!(pending.next(), Next::List);
    pending.begin_list();
    pending.found("dt=1".to_owned());
    pending.registered("dt=1".to_owned());
    assert!(pending.publish("dt=2"));
    assert!(matches!(pending.next(), Next::Add(_)), "no second listing");
    // Its memory is bounded.
    for partition in names("worse=", 0..2 * MAX_PENDING) {
        pending.found(partition);
    }
    assert_eq!(pending.len(), 2 * MAX_PENDING);
}

proptest! {
    /// Whatever is refused and published meanwhile: a round registers all others, and ends.
    #[test]
    fn a_round_registers_all_that_is_not_refused(
        rounds in prop::collection::vec((prop::collection::btree_set(0..400_usize, 0..300), prop::bool::ANY), 1..6),
        bad in prop::collection::btree_set(0..400_usize, 0..40),
    ) {
        let bad: BTreeSet<String> = bad.into_iter().map(|number| format!("p={number:03}")).collect();
        let mut pending = Pending::default();
        let mut published = BTreeSet::new();
        for (numbers, list) in rounds {
            let found: Vec<String> = numbers.into_iter().map(|number| format!("p={number:03}")).collect();
            published.extend(found.iter().cloned());
            pending.list = list;
            if !list {
                found.iter().for_each(|partition| { pending.publish(partition); });
            }
            play(&mut pending, &|partition| bad.contains(partition), &found);
            let refused: Vec<&String> = published.intersection(&bad).collect();
            prop_assert_eq!(pending.len(), refused.len());
            prop_assert_eq!(pending.refusal().is_some(), !refused.is_empty());
            prop_assert_eq!(pending.is_done(), refused.is_empty());
        }
    }
}
