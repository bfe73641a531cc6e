//! What the worker asks of the sink.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::store::Store;
use super::{LONGEST_STEP, ParquetSink, STEPS, retry, s3, sweep};
use crate::batch::{Batch, BatchId};
use crate::{Answer, BoxFuture, Joint, Prepared, Sink, SinkError, SinkState, Source};

impl Sink for ParquetSink {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Answer, SinkError>> {
        Box::pin(self.deliver_batch(batch))
    }

    fn tick(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        Box::pin(async {
            if let (Some(hive), Some(layout)) = (&self.hive, self.layout.get()) {
                hive.start(layout);
            }
            if self.two_phase {
                return Ok(Vec::new()); // `commit_due` looks at the age.
            }
            let mut inner = self.begin().await?;
            let rolled = inner.files.roll_by_age().await;
            self.end(inner, rolled).await
        })
    }

    fn flush(&self) -> BoxFuture<'_, Result<Vec<BatchId>, SinkError>> {
        Box::pin(async {
            let mut inner = self.begin().await?;
            let flushed = inner.files.flush().await;
            self.end(inner, flushed).await
        })
    }

    fn abandon(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut inner = self.inner.lock().await;
            inner.failed = None;
            self.drop_held(&mut inner).await;
        })
    }

    /// Calls wait for each other, and for any number of requests: an outage of the bucket is made of requests that fail in time.
    fn longest_step(&self) -> Option<Duration> {
        Some(LONGEST_STEP)
    }

    fn steps(&self) -> u64 {
        STEPS.load(Ordering::Relaxed)
    }

    fn holds(&self) -> bool {
        true
    }

    fn joint(&self) -> Option<Joint> {
        self.two_phase.then_some(Joint::Named)
    }

    fn commit_due(&self) -> bool {
        let due = self.facts().due;
        due.now || due.at.is_some_and(|at| at <= Instant::now())
    }

    fn prepare<'a>(&'a self, source: &'a Source) -> BoxFuture<'a, Result<String, SinkError>> {
        Box::pin(self.prepare_all(source))
    }

    fn suspects(&self) -> BoxFuture<'_, Vec<Prepared>> {
        Box::pin(self.manifests.suspects())
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let removed = match &self.store {
                Store::Local { root } => {
                    let root = root.clone();
                    let walk = tokio::task::spawn_blocking(move || sweep::sweep(&root));
                    walk.await.unwrap_or_default()
                }
                Store::S3 { .. } => {
                    let sweeping = self.manifests.sweep_uploads().await;
                    sweeping.unwrap_or_else(|error| {
                        tracing::info!(
                            "uploads that crashes have left were not looked for: {error}"
                        );
                        0
                    })
                }
            };
            metrics::counter!("keystone_parquet_swept_files_total").increment(removed);
        })
    }

    fn publish<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), SinkError>> {
        Box::pin(self.publish_named(name))
    }

    fn is_prepared<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, SinkError>> {
        Box::pin(async move {
            let found = self.manifests.read(self.stem(name)?).await;
            found.map(|files| files.is_some()).map_err(retry)
        })
    }

    fn discard<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Ok(stem) = self.stem(name) else { return };
            if let Err(error) = self.manifests.discard(stem).await {
                tracing::warn!(name, "hidden files could not be removed: {error}");
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.check_all())
    }

    fn state(&self) -> SinkState {
        let facts = self.facts().clone();
        let mut state = SinkState {
            facts: vec![
                ("location", self.store.shown()),
                ("open_files", facts.open_files.to_string()),
                ("waiting_files", facts.waiting_files.to_string()),
                ("open_rows", facts.open_rows.to_string()),
                ("buffered_bytes", facts.buffered_bytes.to_string()),
                ("files_published", facts.files_published.to_string()),
            ],
            ..SinkState::default()
        };
        if matches!(self.store, Store::S3 { .. }) {
            state.problems.extend(s3::problem());
        }
        if let Some(hive) = &self.hive {
            state.problems.extend(hive.problems());
            state
                .facts
                .push(("metastore_pending_partitions", hive.pending().to_string()));
            let refusal = hive.refusal().map(|text| ("metastore_refuses", text));
            state.facts.extend(refusal);
        }
        state
    }
}
