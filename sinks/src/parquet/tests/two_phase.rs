//! Two-phase publication in real directories; the group's commit is played by the test.

use proptest::prelude::*;

use super::*;
use crate::Joint;

fn two_phase(worker: &str, root: &Path, sets: &[&str]) -> Box<dyn Sink> {
    let mut all = vec!["sink.parquet.publish=two-phase", BY_DAY];
    all.extend_from_slice(sets);
    sink_of(worker, root, &all)
}

fn hidden(root: &Path) -> usize {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let all = files(root);
    all.iter()
        .filter(|path| name(path).ends_with(".inprogress"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_visible_before_the_name_is_published() {
    let root = tempfile::tempdir().unwrap();
    let sink = two_phase("w0", root.path(), &[]);
    assert_eq!(sink.joint(), Some(Joint::Named));
    sink.deliver(&batch(1, [(1, 1), (2, 2)])).await.unwrap();
    let answer = sink.deliver(&batch(2, [(3, 1)])).await.unwrap();
    assert!(answer.held && answer.durable.is_empty());
    let name = sink.prepare(&Source::default()).await.unwrap();
    assert!(name.len() < 200 && name.is_ascii(), "{name}");
    assert!(sink.is_prepared(&name).await.unwrap());
    assert_eq!(visible(root.path()), Vec::<PathBuf>::new());
    // What is prepared is no longer the sink's to drop.
    sink.abandon().await;
    assert_eq!(hidden(root.path()), 2);
    sink.publish(&name).await.unwrap();
    let expected = BTreeMap::from([
        ("dt=2026-11-01".to_owned(), vec![1, 3]),
        ("dt=2026-11-02".to_owned(), vec![2]),
    ]);
    assert_eq!(ids(root.path()), expected);
    assert!(!sink.is_prepared(&name).await.unwrap());
    assert_eq!(files(root.path()).len(), 2, "the manifest is gone");
    sink.publish(&name).await.unwrap();
    assert_eq!(ids(root.path()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_worker_publishes_what_a_dead_one_left_halfway() {
    let root = tempfile::tempdir().unwrap();
    let dead = two_phase("w0", root.path(), &[]);
    dead.deliver(&batch(1, (0..30).map(|id| (id, id as u32 % 5 + 1))))
        .await
        .unwrap();
    let name = dead.prepare(&Source::default()).await.unwrap();
    let first = files(root.path())
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "inprogress"))
        .unwrap();
    let shown = first.file_name().unwrap().to_string_lossy().into_owned();
    let shown = shown
        .trim_start_matches('.')
        .trim_end_matches(".inprogress");
    std::fs::rename(&first, first.with_file_name(shown)).unwrap();
    drop(dead);
    // Two at once, one of which publishes its own files directly.
    let (a, b) = (two_phase("w1", root.path(), &[]), sink(root.path(), &[]));
    let (one, other) = tokio::join!(a.publish(&name), b.publish(&name));
    one.unwrap();
    other.unwrap();
    let mut all: Vec<i64> = ids(root.path()).into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<i64>>());
    assert_eq!(hidden(root.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_committed_is_discarded() {
    let root = tempfile::tempdir().unwrap();
    let sink = two_phase("w0", root.path(), &[]);
    sink.deliver(&batch(1, [(1, 1), (2, 2)])).await.unwrap();
    let name = sink.prepare(&Source::default()).await.unwrap();
    sink.deliver(&batch(2, [(3, 3)])).await.unwrap();
    sink.discard(&name).await;
    assert!(!sink.is_prepared(&name).await.unwrap());
    assert_eq!(hidden(root.path()), 1, "the open file of the second batch");
    let name = sink.prepare(&Source::default()).await.unwrap();
    sink.publish(&name).await.unwrap();
    assert_eq!(ids(root.path())["dt=2026-11-03"], [3]);
    assert_eq!(visible(root.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_due_when_half_of_the_files_are_full_or_one_is_old() {
    let root = tempfile::tempdir().unwrap();
    let sink = two_phase("w0", root.path(), &["sink.parquet.roll.max.rows=10"]);
    let full = |day| (0..10).map(move |id| (id, day));
    assert!(!sink.commit_due());
    sink.deliver(&batch(1, [(1, 1), (2, 2), (3, 3)]))
        .await
        .unwrap();
    assert!(!sink.commit_due(), "nothing is full");
    sink.deliver(&batch(2, full(4))).await.unwrap();
    assert!(!sink.commit_due(), "one is full and three are open");
    sink.deliver(&batch(3, full(5).chain(full(6))))
        .await
        .unwrap();
    assert!(sink.commit_due(), "three are full and three are open");
    let name = sink.prepare(&Source::default()).await.unwrap();
    assert!(!sink.commit_due());
    sink.publish(&name).await.unwrap();
    assert_eq!(visible(root.path()).len(), 6);

    let old = two_phase("w1", root.path(), &["sink.parquet.roll.max.age.ms=10"]);
    old.deliver(&batch(4, [(1, 1)])).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !old.commit_due() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the sink has lost is still held by the worker: a commit of later rows would cover it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_nothing_is_taken_before_the_worker_has_given_up_too() {
    let root = tempfile::tempdir().unwrap();
    let sink = two_phase("w0", root.path(), &[]);
    sink.deliver(&batch(1, [(1, 1)])).await.unwrap();
    // A file where a directory is wanted.
    std::fs::write(root.path().join("dt=2026-11-02"), b"").unwrap();
    let lost = sink.deliver(&batch(2, [(2, 2)])).await.unwrap_err();
    assert!(matches!(lost, SinkError::Rewind(_)), "{lost}");
    for _ in 0..2 {
        let refused = sink.deliver(&batch(3, [(3, 3)])).await.unwrap_err();
        assert!(matches!(refused, SinkError::Rewind(_)), "{refused}");
        let refused = sink.prepare(&Source::default()).await.unwrap_err();
        assert!(matches!(refused, SinkError::Rewind(_)), "{refused}");
    }
    std::fs::remove_file(root.path().join("dt=2026-11-02")).unwrap();
    sink.abandon().await;
    sink.deliver(&batch(4, [(4, 4)])).await.unwrap();
    let name = sink.prepare(&Source::default()).await.unwrap();
    sink.publish(&name).await.unwrap();
    assert_eq!(ids(root.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_other_places_and_times_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let sink = two_phase("w0", root.path(), &[]);
    sink.deliver(&batch(1, [(1, 1)])).await.unwrap();
    let name = sink.prepare(&Source::default()).await.unwrap();
    let other = two_phase("w0", elsewhere.path(), &[]);
    let error = other.publish(&name).await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Fatal(text) if text.contains("sink.parquet.location")),
        "{error}"
    );
    for bad in ["", "x", "0123:", "0123:../../etc/passwd", "0123:a/b"] {
        let error = sink.publish(bad).await.unwrap_err();
        assert!(matches!(&error, SinkError::Fatal(_)), "{bad}: {error}");
    }
}

/// What may happen to a worker and its commits.
#[derive(Debug, Clone)]
enum Step {
    Deliver(u8),
    Rewind,
    /// Dies with open files; another takes over.
    Crash,
    /// Commits, and publishes as many files of the manifest before it dies, if it dies.
    Commit {
        dies: Option<u8>,
    },
    /// Prepares; Kafka has not committed. Dies, or drops it.
    Refused {
        dies: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..40_u8).prop_map(Step::Deliver),
        1 => Just(Step::Rewind),
        1 => Just(Step::Crash),
        2 => prop::option::of(0..6_u8).prop_map(|dies| Step::Commit { dies }),
        1 => any::<bool>().prop_map(|dies| Step::Refused { dies }),
    ]
}

/// A group of one partition, its workers, and the directory.
struct World {
    root: tempfile::TempDir,
    sink: Box<dyn Sink>,
    workers: usize,
    batches: u64,
    /// The next event to read, and whether any is held.
    position: i64,
    held: bool,
    /// The group's commit: offset and metadata.
    committed: i64,
    named: Option<String>,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        World {
            sink: World::sink(root.path(), 0),
            root,
            workers: 1,
            batches: 0,
            position: 0,
            held: false,
            committed: 0,
            named: None,
        }
    }

    fn sink(root: &Path, worker: usize) -> Box<dyn Sink> {
        two_phase(
            &format!("w{worker}"),
            root,
            &[
                "sink.parquet.roll.max.rows=15",
                "sink.parquet.max.open.files=2",
            ],
        )
    }

    async fn deliver(&mut self, count: u8) {
        let events = (self.position..self.position + i64::from(count))
            .map(|id| (id, (id * 7 % 4) as u32 + 1));
        self.batches += 1;
        self.sink
            .deliver(&batch(self.batches, events))
            .await
            .unwrap();
        self.position += i64::from(count);
        self.held = true;
    }

    /// Another worker begins where the group is.
    async fn take_over(&mut self) {
        self.sink = World::sink(self.root.path(), self.workers);
        self.workers += 1;
        if let Some(name) = self.named.clone() {
            self.sink.publish(&name).await.unwrap();
        }
        (self.position, self.held) = (self.committed, false);
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Deliver(count) => self.deliver(count).await,
            Step::Rewind => {
                self.sink.abandon().await;
                (self.position, self.held) = (self.committed, false);
            }
            Step::Crash => self.take_over().await,
            Step::Commit { .. } | Step::Refused { .. } if !self.held => {}
            Step::Commit { dies } => {
                let name = self.sink.prepare(&Source::default()).await.unwrap();
                (self.committed, self.named) = (self.position, Some(name.clone()));
                self.held = false;
                match dies {
                    None => self.sink.publish(&name).await.unwrap(),
                    Some(after) => {
                        self.publish_some(usize::from(after));
                        self.take_over().await;
                    }
                }
            }
            Step::Refused { dies } => {
                let name = self.sink.prepare(&Source::default()).await.unwrap();
                match dies {
                    true => self.take_over().await,
                    false => {
                        self.sink.discard(&name).await;
                        (self.position, self.held) = (self.committed, false);
                    }
                }
            }
        }
    }

    /// The first files of the last manifest are published, as by a worker that dies after that.
    fn publish_some(&self, count: usize) {
        let (_, stem) = self.named.as_ref().unwrap().split_once(':').unwrap();
        let path = self
            .root
            .path()
            .join(format!("_keystone/plays/{stem}.json"));
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for file in manifest["files"].as_array().unwrap().iter().take(count) {
            let text = |key: &str| file[key].as_str().unwrap().to_owned();
            local::publish_closed(self.root.path(), &text("partition"), &text("name")).unwrap();
        }
    }

    fn seen(&self) -> Vec<i64> {
        let mut all: Vec<i64> = ids(self.root.path()).into_values().flatten().collect();
        all.sort_unstable();
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever dies and whenever: readers see what is committed, each event once, and nothing else.
    #[test]
    fn readers_see_what_is_committed_and_once(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.step(step).await;
                assert_eq!(world.seen(), (0..world.committed).collect::<Vec<_>>());
            }
        });
    }
}
