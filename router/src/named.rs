//! Joint commits of a sink that hides what it holds under a name ([`Joint::Named`](keystone_sinks::Joint)): the consumer commits the
//! offsets with that name as their metadata, then the sink publishes.
//!
//! ```text
//! prepare ──> asked ──(Kafka has it)──> committed ── publish ──> done
//!               └──(it has not, and never will)──> discard, rewind
//! ```
//!
//! One request commits all partitions of a group, or none. While every partition is still this worker's, an answer that failed is asked for
//! again, whatever it was: nobody else can have committed in between. Once one was given up, the group's commits tell: the name stands
//! there, or what was prepared is gone because another worker has found the name and published it; else it was not committed.
//!
//! The name must be acted on before the next commit writes over it. So whoever is assigned a partition remembers the names that it finds,
//! and publishes them before it commits anything.

mod sweep;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use keystone_sinks::kafka::client::is_refusal;
use keystone_sinks::{Cause, SinkError, Source};
use rdkafka::TopicPartitionList;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::sync::OwnedRwLockWriteGuard;
use tracing::{debug, info};

use crate::backoff::{Backoff, jitter};
use crate::group::take_answer;
use crate::joint::{
    Chosen, Committing, choose_offsets, commit_failed, commits_are_well, settle_committed,
    wait_for_whole_batches,
};
use crate::list::list_of;
use crate::membership::ADVICE;
use crate::offsets::Commit;
use crate::state::{Shared, lock};
pub use sweep::sweep;

/// Before a name in the metadata of a commit; the number is the version of what follows.
const TAG: &str = "keystone:publish:";
const VERSION: &str = "1:";
/// How long after an answer that never came a request may still be on its way to the group's coordinator.
const STRAGGLER: Duration = Duration::from_secs(5);
/// The longest pause between two attempts: a drain may be waiting.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long a rewind waits for a call of the sink, which may wait out an outage of its storage. While it waits, nothing is polled.
const REWIND_WAITS: Duration = Duration::from_secs(30);
/// How often a call that takes long looks whether anybody waits for it.
const LOOK: Duration = Duration::from_millis(100);

/// The metadata of a commit that names what is to be published.
pub fn metadata(name: &str) -> String {
    format!("{TAG}{VERSION}{name}")
}

/// The name in the metadata of a commit. The text of an error is for a person.
pub fn name_in(metadata: &str) -> Result<Option<&str>, String> {
    let Some(versioned) = metadata.strip_prefix(TAG) else {
        return Ok(None);
    };
    let name = versioned.strip_prefix(VERSION).ok_or_else(|| {
        format!("the group's last commit was made by a newer version of Keystone ({metadata}): start that version once")
    })?;
    Ok(Some(name))
}

/// A commit that was begun.
struct Begun {
    name: String,
    chosen: Arc<Chosen>,
    stage: Stage,
    /// No batch enters the sink before all is published.
    _whole: OwnedRwLockWriteGuard<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Prepared,
    /// Kafka was asked. `open` is when an answer that leaves it open came last.
    Asked {
        open: Option<Instant>,
    },
    Committed,
}

/// What one step has brought.
enum Step {
    Done,
    On(Stage),
    Later,
}

/// The named commits of a worker, and the names that it found.
pub struct NamedCommits {
    unfinished: Mutex<Option<Begun>>,
    /// Found at an assignment, with the commits that they stand in: committed, and perhaps not published.
    found: Mutex<BTreeMap<String, Vec<Commit>>>,
    /// Held while Kafka is asked: no partition is given up meanwhile.
    asking: Mutex<()>,
    pause: Mutex<Pause>,
    /// [`STRAGGLER`].
    pub(crate) straggler: Duration,
}

struct Pause {
    backoff: Backoff,
    until: Option<Instant>,
}

impl NamedCommits {
    pub fn new(initial: Duration, max: Duration) -> NamedCommits {
        NamedCommits {
            unfinished: Mutex::default(),
            found: Mutex::default(),
            asking: Mutex::default(),
            pause: Mutex::new(Pause {
                backoff: Backoff::new(initial, max.min(MAX_PAUSE)),
                until: None,
            }),
            straggler: STRAGGLER,
        }
    }

    pub fn is_unfinished(&self) -> bool {
        lock(&self.unfinished).is_some()
    }

    /// What comes of a call of the sink, for as long as somebody wants to know. One that is cut off has done nothing, or what the next attempt
    /// or the next worker finds.
    async fn call<T>(&self, at: Committing<'_>, call: impl Future<Output = T>) -> Option<T> {
        let rewind_waits = || at.shared.rewind_waits.load(Ordering::Acquire);
        let has_ended = || at.shared.loop_ended();
        let done = while_wanted(rewind_waits, REWIND_WAITS, has_ended, call).await;
        if done.is_none() {
            debug!("a call of the sink is cut off: a rewind waits for it, or the worker ends");
            self.wait();
        }
        done
    }

    /// Remembers what the commit of a partition just assigned names.
    pub fn remember(&self, name: &str, commit: Commit) {
        let mut found = lock(&self.found);
        found.entry(name.to_owned()).or_default().push(commit);
    }

    /// Locked by whoever asks Kafka to commit, until it has answered.
    pub fn commit_lock(&self) -> &Mutex<()> {
        &self.asking
    }

    /// Waits until no commit is on its way, and holds back others while the guard lives. `None` where that takes too long.
    pub fn hold_commits(&self, at_most: Duration, beat: impl Fn()) -> Option<MutexGuard<'_, ()>> {
        let deadline = Instant::now() + at_most;
        loop {
            match self.asking.try_lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            }
            beat();
        }
    }

    /// Whether names were found that are not published yet.
    pub fn has_found(&self) -> bool {
        !lock(&self.found).is_empty()
    }

    /// Publishes what earlier commits name. Answers whether that is done: nothing is committed before.
    pub fn recover(&self, at: Committing<'_>) -> bool {
        loop {
            let Some(name) = lock(&self.found).keys().next().cloned() else {
                return true;
            };
            if self.is_pausing() {
                return false;
            }
            if !self.publish(at, &name) {
                return false;
            }
            info!(name, "what the group's last commit names is published");
            let commits = lock(&self.found).remove(&name);
            self.clear_name(at, &commits.unwrap_or_default());
        }
    }

    /// Takes a commit as far as it goes now. For the committing thread.
    pub fn commit(&self, at: Committing<'_>) {
        let unfinished = lock(&self.unfinished).is_some();
        if self.is_pausing() || !unfinished && !self.begin(at) {
            return;
        }
        loop {
            let step = {
                let unfinished = lock(&self.unfinished);
                let Some(begun) = &*unfinished else { return };
                let (name, stage) = (begun.name.clone(), begun.stage);
                let list = list_of(&begun.chosen.offsets, Some(&metadata(&name)));
                drop(unfinished);
                match stage {
                    Stage::Committed => self.publish_committed(at, &name),
                    stage => self.ask(at, &name, &list, stage),
                }
            };
            match step {
                Step::On(stage) => {
                    if let Some(begun) = &mut *lock(&self.unfinished) {
                        begun.stage = stage;
                    }
                    if stage != Stage::Committed {
                        return;
                    }
                }
                Step::Later => return,
                Step::Done => {
                    lock(&self.unfinished).take();
                    return;
                }
            }
        }
    }

    /// Chooses the offsets and has the sink prepare; answers whether there is something to commit.
    fn begin(&self, at: Committing<'_>) -> bool {
        at.runtime.block_on(async {
            let Some(whole) = wait_for_whole_batches(at.shared).await else {
                return false;
            };
            let _alone = at.shared.gate.write().await;
            if at.consumer.assignment_lost() {
                return false;
            }
            let Some(chosen) = choose_offsets(at.shared) else {
                return false;
            };
            if self.has_found() {
                return false; // A partition came in meanwhile, and may be among them.
            }
            let source = Source {
                group: at.consumer.group().to_owned(),
                partitions: chosen.offsets.iter().map(partition_of).collect(),
            };
            at.pulse.turn();
            match self.call(at, at.sink.prepare(&source)).await {
                Some(Ok(name)) => {
                    *lock(&self.unfinished) = Some(Begun {
                        name,
                        chosen: Arc::new(chosen),
                        stage: Stage::Prepared,
                        _whole: whole,
                    });
                    true
                }
                Some(Err(error)) => {
                    at.shared.commit_failures.fetch_add(1, Ordering::Relaxed);
                    take_answer(at.shared, Err(error));
                    self.wait();
                    false
                }
                None => false, // What the sink holds is dropped next.
            }
        })
    }

    /// Asks Kafka to commit, or what has become of an earlier request.
    fn ask(&self, at: Committing<'_>, name: &str, list: &TopicPartitionList, stage: Stage) -> Step {
        let open = match stage {
            Stage::Asked { open } => open,
            _ => None,
        };
        let now = Instant::now();
        let asked = {
            let _asking = lock(&self.asking);
            at.pulse.turn();
            match self.is_ours(at.shared) && !at.consumer.assignment_lost() {
                true => Some(at.consumer.commit(list)),
                false => None,
            }
        };
        match asked {
            Some(Ok(())) => {
                commits_are_well(at.shared);
                Step::On(Stage::Committed)
            }
            Some(Err(error)) => {
                self.wait();
                not_answered(at, now, &error);
                let open = match surely_not_committed(&error) {
                    true => open,
                    false => Some(Instant::now()),
                };
                Step::On(Stage::Asked { open })
            }
            None if stage == Stage::Prepared => self.drop_prepared(at, name),
            None if open.is_some_and(|open| open.elapsed() < self.straggler) => Step::Later,
            None => self.ask_back(at, name, list),
        }
    }

    /// Whether every partition of the commit is still this worker's, and was all the time.
    fn is_ours(&self, shared: &Shared) -> bool {
        let unfinished = lock(&self.unfinished);
        let offsets = shared.offsets();
        unfinished.iter().all(|begun| {
            let mut commits = begun.chosen.offsets.iter();
            commits.all(|commit| offsets.generation(&commit.key) == Some(commit.generation))
        })
    }

    /// A partition was given up meanwhile: what the group has committed tells.
    fn ask_back(&self, at: Committing<'_>, name: &str, list: &TopicPartitionList) -> Step {
        self.wait();
        match is_named(at, name, list) {
            Ok(is_committed) => {
                commits_are_well(at.shared);
                if is_committed {
                    return Step::On(Stage::Committed);
                }
            }
            Err(error) => {
                let group = at.consumer.group();
                let text = format!(
                    "whether a commit of group {group} was carried out could not be asked, and nothing else is committed before: {error}; {ADVICE}"
                );
                at.shared.troubles.tell("commits", text);
                return Step::Later;
            }
        }
        let asked = self.call(at, at.sink.is_prepared(name));
        match at.runtime.block_on(asked) {
            Some(Ok(true)) => self.drop_prepared(at, name),
            // Who else would have published it?
            Some(Ok(false)) => Step::On(Stage::Committed),
            Some(Err(error)) => {
                take_answer(at.shared, Err(error));
                Step::Later
            }
            None => Step::Later,
        }
    }

    /// Kafka has not committed it, and never will.
    fn drop_prepared(&self, at: Committing<'_>, name: &str) -> Step {
        // What is cut off stays hidden, for a sweep.
        let _discarded = at.runtime.block_on(self.call(at, at.sink.discard(name)));
        // Before anything else can be committed.
        at.shared.abandon_held();
        at.shared.request_rewind(Cause {
            reason: "not_committed",
            detail: "partitions were given up before their commit; what was to be published with it is dropped and read again".to_owned(),
            after: None,
        });
        Step::Done
    }

    fn publish_committed(&self, at: Committing<'_>, name: &str) -> Step {
        if !self.publish(at, name) {
            return Step::Later;
        }
        let chosen = lock(&self.unfinished)
            .as_ref()
            .map(|begun| begun.chosen.clone());
        if let Some(chosen) = chosen {
            // Still unfinished: a rewind waits for it.
            settle_committed(at.shared, &chosen);
            self.clear_name(at, &chosen.offsets);
        }
        Step::Done
    }

    /// Answers whether it is published.
    fn publish(&self, at: Committing<'_>, name: &str) -> bool {
        at.pulse.turn();
        match at.runtime.block_on(self.call(at, at.sink.publish(name))) {
            Some(Ok(())) => {
                at.shared.troubles.all_is_well("publish");
                lock(&self.pause).backoff.reset();
                return true;
            }
            None => return false,
            Some(Err(SinkError::Fatal(reason))) => at.shared.fail(reason),
            Some(Err(error)) => {
                let reason = match &error {
                    SinkError::Retry(cause) | SinkError::Rewind(cause) => cause.reason,
                    _ => "publish",
                };
                at.shared.count_retry("sink", reason);
                at.shared.troubles.tell(
                    "publish",
                    format!("committed files are not visible yet, and nothing else is committed before: {error}"),
                );
            }
        }
        self.wait();
        false
    }

    /// All is published: takes the name out of the group's commits, so that a worker that finds one knows that it matters. Where that
    /// fails, the next commit of each partition does it.
    fn clear_name(&self, at: Committing<'_>, commits: &[Commit]) {
        let _asking = lock(&self.asking);
        at.pulse.turn();
        let ours: Vec<_> = {
            let offsets = at.shared.offsets();
            let ours = commits
                .iter()
                .filter(|commit| offsets.generation(&commit.key) == Some(commit.generation));
            ours.cloned().collect()
        };
        if !ours.is_empty()
            && !at.consumer.assignment_lost()
            && let Err(error) = at.consumer.commit(&list_of(&ours, None))
        {
            debug!("a name was not taken out of the group's commits: {error}");
        }
    }

    fn is_pausing(&self) -> bool {
        let pause = lock(&self.pause);
        pause.until.is_some_and(|until| Instant::now() < until)
    }

    /// The next attempt is not made at once.
    fn wait(&self) {
        let mut pause = lock(&self.pause);
        let next = pause.backoff.next(jitter(), None);
        pause.until = Some(Instant::now() + next);
    }
}

/// A commit was refused, or its answer did not come.
fn not_answered(at: Committing<'_>, asked: Instant, error: &KafkaError) {
    commit_failed(at, asked, error);
    if error.rdkafka_error_code().is_some_and(is_refusal) {
        at.shared.fail(format!(
            "kafka does not let the route commit as group {}: {error}; give its user the rights, or change kafka.sasl.*",
            at.consumer.group()
        ));
    } else if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetMetadataTooLarge) {
        at.shared.fail(format!(
            "kafka refuses the metadata of a commit, which names the files to publish: {error}; raise offset.metadata.max.bytes of the brokers to its default of 4096, or set sink.parquet.publish = direct"
        ));
    }
}

/// What comes of a call; `None` where it took until the worker ended, or a rewind has waited for it for so long.
async fn while_wanted<T>(
    rewind_waits: impl Fn() -> bool,
    at_most: Duration,
    has_ended: impl Fn() -> bool,
    call: impl Future<Output = T>,
) -> Option<T> {
    let unwanted = async {
        let mut rewinding: Option<Instant> = None;
        while !has_ended() && rewinding.is_none_or(|since| since.elapsed() < at_most) {
            rewinding = match rewind_waits() {
                true => rewinding.or_else(|| Some(Instant::now())),
                false => None,
            };
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        done = call => Some(done),
        () = unwanted => None,
    }
}

/// Whether the group's commits of any of these partitions have this name.
fn is_named(at: Committing<'_>, name: &str, list: &TopicPartitionList) -> KafkaResult<bool> {
    at.pulse.turn();
    let wanted = metadata(name);
    let mut asked = TopicPartitionList::new();
    for element in list.elements() {
        asked.add_partition(element.topic(), element.partition());
    }
    let found = at.consumer.committed(asked)?;
    for element in found.elements() {
        element.error()?;
        if element.metadata() == wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

fn partition_of(commit: &Commit) -> (String, i32) {
    (commit.key.topic.to_string(), commit.key.partition)
}

/// Whether Kafka has surely not carried out what it answered so.
fn surely_not_committed(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::RebalanceInProgress
                | Code::FencedInstanceId
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch
                | Code::OffsetMetadataTooLarge
        )
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::ConsumerGroupMetadata;

    use super::*;
    use crate::joint::Coordinator;

    /// The storage is away for long, and the sink waits it out.
    #[tokio::test]
    async fn a_call_that_takes_long_holds_up_neither_a_rewind_nor_the_end() {
        use std::future::{pending, ready};
        let ever = Duration::from_secs(3_600);
        let (waits, none) = (|| true, || false);
        let limit = |time| Duration::from_millis(time);
        // What is done at once counts, whatever else is the case.
        let done = while_wanted(waits, Duration::ZERO, || true, ready(1)).await;
        assert_eq!(done, Some(1));
        let ended = while_wanted(none, ever, || true, pending::<()>()).await;
        assert_eq!(ended, None);
        // Nobody waits.
        let call = while_wanted(none, Duration::ZERO, || false, pending::<()>());
        assert!(tokio::time::timeout(limit(300), call).await.is_err());
        // A rewind has waited since before the call.
        let begun = Instant::now();
        let call = while_wanted(waits, limit(200), || false, pending::<()>());
        assert_eq!(call.await, None);
        assert!(begun.elapsed() >= limit(200));
        // One that is over is not waiting any more.
        let over = || begun.elapsed() < limit(250);
        let call = while_wanted(over, limit(400), || false, pending::<()>());
        assert!(tokio::time::timeout(limit(700), call).await.is_err());
        // It is done while the rewind waits.
        let call = while_wanted(waits, ever, || false, tokio::time::sleep(limit(250)));
        assert_eq!(call.await, Some(()));
    }

    /// What `kafka.group.id` says.
    struct Another;

    impl Coordinator for Another {
        fn group(&self) -> &str {
            "another"
        }

        fn assignment_lost(&self) -> bool {
            false
        }

        fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
            None
        }

        fn commit(&self, _offsets: &TopicPartitionList) -> KafkaResult<()> {
            Ok(())
        }

        fn committed(&self, partitions: TopicPartitionList) -> KafkaResult<TopicPartitionList> {
            Ok(partitions)
        }
    }

    #[tokio::test]
    async fn who_may_not_commit_is_told_of_the_group() {
        let (shared, sink) = crate::state::tests::shared();
        let at = Committing {
            shared: &shared,
            sink: &*sink,
            runtime: &tokio::runtime::Handle::current(),
            consumer: &Another,
            pulse: &shared.stalls.watch("a test", Duration::from_secs(60)),
        };
        let refusal = KafkaError::ConsumerCommit(RDKafkaErrorCode::GroupAuthorizationFailed);
        not_answered(at, Instant::now(), &refusal);
        let told = shared.failure().expect("it ends the worker");
        assert!(
            told.starts_with("kafka does not let the route commit as group another: "),
            "{told}"
        );
    }

    #[test]
    fn a_name_comes_back_out_of_the_metadata() {
        assert_eq!(name_in(&metadata("a:b-1")), Ok(Some("a:b-1")));
        assert_eq!(name_in(""), Ok(None));
        assert_eq!(name_in("somebody else's"), Ok(None));
        let newer = name_in("keystone:publish:2:x").expect_err("it can't be known");
        assert!(newer.contains("newer version"), "{newer}");
    }
}
