//! What is seen of a route from outside while a round runs: how its group's commits move, and its files as they appear.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::Offset;

use crate::{Result, judge};

use super::round::{PARTITIONS, TICK};

/// Follows the committed offsets of a group and measures how long each stands still. Events come to every partition all the time, so none may
/// stand for long.
pub(super) struct Watch {
    seen: Arc<Seen>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// The sum over the partitions.
    committed: AtomicI64,
    ended: AtomicBool,
    /// Whether the fault has begun, and the longest stall since.
    stall: Mutex<(bool, Duration)>,
}

impl Watch {
    pub(super) fn start(bootstrap: &str, group: &str, topic: &str) -> Result<Watch> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("log_level", "0")
            .create()?;
        let mut asked = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            asked.add_partition(topic, partition);
        }
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            // By partition: how far, and since when.
            let mut partitions = [(0, Instant::now()); PARTITIONS as usize];
            while !shared.ended.load(Ordering::SeqCst) {
                std::thread::sleep(TICK);
                let answer = consumer.committed_offsets(asked.clone(), Duration::from_secs(2));
                let Ok(list) = answer else {
                    continue;
                };
                for element in list.elements() {
                    if let Offset::Offset(offset) = element.offset() {
                        shared.note(&mut partitions[element.partition() as usize], offset);
                    }
                }
                let sum = partitions.iter().map(|(offset, _)| offset).sum();
                shared.committed.store(sum, Ordering::SeqCst);
            }
        });
        Ok(Watch { seen, thread })
    }

    /// The sum over the partitions.
    pub(super) fn committed(&self) -> i64 {
        self.seen.committed.load(Ordering::SeqCst)
    }

    pub(super) fn begin(&self) {
        self.seen.stall().0 = true;
    }

    pub(super) fn end(self) -> Duration {
        self.seen.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.join();
        self.seen.stall().1
    }
}

impl Seen {
    fn stall(&self) -> MutexGuard<'_, (bool, Duration)> {
        self.stall.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, partition: &mut (i64, Instant), offset: i64) {
        if offset <= partition.0 {
            return;
        }
        let (_, since) = std::mem::replace(partition, (offset, Instant::now()));
        let mut stall = self.stall();
        if stall.0 {
            stall.1 = stall.1.max(since.elapsed());
        }
    }
}

/// Opens each Parquet file of a directory as soon as a reader would see it.
pub(super) struct Reader {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Option<String>>,
}

impl Reader {
    pub(super) fn start(directory: PathBuf) -> Reader {
        let ended = Arc::new(AtomicBool::new(false));
        let shared = ended.clone();
        let thread = std::thread::spawn(move || {
            let mut read = BTreeSet::new();
            while !shared.load(Ordering::SeqCst) {
                std::thread::sleep(TICK);
                if let Some(problem) = look(&directory, &mut read) {
                    return Some(problem);
                }
            }
            None
        });
        Reader { ended, thread }
    }

    /// What was wrong with the first file that was not whole.
    pub(super) fn end(self) -> Option<String> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .unwrap_or_else(|_| Some("the reader of the files panicked".to_owned()))
    }
}

/// Reads what can be seen and was not read before.
fn look(directory: &Path, read: &mut BTreeSet<PathBuf>) -> Option<String> {
    // A directory may go while it is listed; its files are listed the next time.
    let files = judge::visible_files(directory).unwrap_or_default();
    for file in files {
        if read.contains(&file) {
            continue;
        }
        let content = match std::fs::read(&file) {
            Ok(content) => content,
            Err(error) => {
                return Some(format!(
                    "{} was there and can't be read: {error}",
                    file.display()
                ));
            }
        };
        if let Err(error) = judge::parquet_rows(Bytes::from(content)) {
            return Some(format!(
                "a reader saw half a file, {}: {error}",
                file.display()
            ));
        }
        read.insert(file);
    }
    None
}
