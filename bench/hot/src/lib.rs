//! The parts of an event's path that need no server, each alone: what Criterion times and the guard counts instructions of.
//!
//! A case makes its input once and then does the same work in every round, through what the crates make public.

mod events;
mod parquet;

use std::hint::black_box;
use std::sync::Arc;

use keystone::decision::{Decider, Decision, Steps};
use keystone::offsets::{Offsets, PartitionKey};
use keystone::route;
use keystone_config::Sources;
use keystone_dsl::Record;
use keystone_sinks::elasticsearch::answer;
use keystone_sinks::elasticsearch::bulk::{self, Id, Op, Plan};
use keystone_sinks::template::{Fields, Template};
use keystone_sinks::{Batch, BatchBuilder, BatchId, Claim, RecordMeta, Sink};

use events::{FILTER, PROJECTION};

/// One part of the path.
pub struct Case {
    pub name: &'static str,
    /// That a round works on.
    pub events: u64,
    /// Makes the input; what it returns is one round.
    pub make: fn() -> Box<dyn FnMut()>,
}

/// Events of a full batch.
const BATCH: u64 = 1_000;
/// About the bytes of a batch.
const BATCH_BYTES: usize = 1 << 20;
/// Partitions that the events of a batch are of, in runs.
const PARTITIONS: i32 = 8;

/// All cases, in the order of an event's path.
pub const CASES: [Case; 7] = [
    Case {
        name: "decide",
        events: BATCH,
        make: decide,
    },
    Case {
        name: "batch-building",
        events: BATCH,
        make: batch_building,
    },
    Case {
        name: "offset-window",
        events: BATCH,
        make: offset_window,
    },
    Case {
        name: "bulk-encoding",
        events: BATCH,
        make: bulk_encoding,
    },
    Case {
        name: "bulk-answer",
        events: BATCH,
        make: bulk_answer,
    },
    Case {
        name: "parquet-rows",
        events: BATCH,
        make: parquet::rows,
    },
    Case {
        name: "parquet-file",
        events: BATCH * parquet::BATCHES,
        make: parquet::file,
    },
];

/// Filter and projection of events of which one in six is kept.
fn decide() -> Box<dyn FnMut()> {
    let payloads: Vec<String> = (0..BATCH).map(events::any).collect();
    // Lives as long as the process: the decider borrows it, and both belong to the round.
    let steps: &'static Steps = Box::leak(Box::new(steps()));
    let mut decider = Decider::new(steps);
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for payload in &payloads {
            let record = Record::of(black_box(payload.as_bytes()));
            black_box(decider.decide(&record, &mut out));
        }
    })
}

/// Claims, and copies of key and original beside what a projection has written.
fn batch_building() -> Box<dyn FnMut()> {
    let events = projected();
    // As a lane does, which fills the same memory again and again: memory that grows is now and then copied, and at other times not.
    let mut builder = BatchBuilder::new(BATCH_BYTES);
    Box::new(move || {
        black_box(built(&events, &mut builder));
    })
}

/// Batches tracked in order and settled in pairs turned round, then committed. An event is a claim here.
fn offset_window() -> Box<dyn FnMut()> {
    let keys: Vec<PartitionKey> = (0..PARTITIONS)
        .map(|partition| PartitionKey::new("events", partition))
        .collect();
    let mut offsets = Offsets::default();
    let generations: Vec<u64> = keys
        .iter()
        .map(|key| offsets.assign(key.clone(), Some(0), Some(0)))
        .collect();
    let mut next = 0;
    Box::new(move || {
        let claims: Vec<Claim> = (0..BATCH as usize)
            .map(|number| {
                let at = number % keys.len();
                let start = next + (number / keys.len()) as i64 * 100;
                Claim {
                    topic: keys[at].topic.clone(),
                    partition: keys[at].partition,
                    generation: generations[at],
                    offsets: start..start + 100,
                    events: 16,
                }
            })
            .collect();
        next += BATCH as i64 / keys.len() as i64 * 100;
        for claim in &claims {
            black_box(offsets.track(claim));
        }
        for pair in claims.chunks(2 * keys.len()) {
            for claim in pair.iter().rev() {
                black_box(offsets.settle(claim));
            }
        }
        for commit in offsets.committable() {
            offsets.committed(&commit.key, commit.offset);
        }
    })
}

/// The body of a `_bulk` request with ids of offsets.
fn bulk_encoding() -> Box<dyn FnMut()> {
    let (batch, plan) = (kept_batch(), plan());
    Box::new(move || {
        black_box(bulk::encode(&batch, &plan));
    })
}

/// The answer that says item by item that all are created, with what `FILTER_PATH` asks for.
fn bulk_answer() -> Box<dyn FnMut()> {
    let (batch, plan) = (kept_batch(), plan());
    let request = bulk::encode(&batch, &plan);
    let items: Vec<String> = request
        .sent
        .iter()
        .map(|sent| {
            let id = request.id(sent).unwrap_or_default();
            format!(r#"{{"create":{{"_id":"{id}","result":"created","status":201}}}}"#)
        })
        .collect();
    let body = format!(r#"{{"items":[{}]}}"#, items.join(","));
    Box::new(move || {
        let outcome = answer::settle(body.as_bytes(), &request, &plan, &batch);
        assert!(outcome.is_ok_and(|outcome| outcome.answer.rejected.is_empty()));
    })
}

/// A route's decisions and its sink; `more` are options beside those that every case has.
fn load(more: &[&str]) -> (Steps, Arc<dyn Sink>) {
    let mut sets: Vec<String> = [
        "route.name=bench",
        "source.topics=events",
        "kafka.bootstrap.servers=127.0.0.1:1",
        &format!("filter={FILTER}"),
    ]
    .map(str::to_owned)
    .to_vec();
    sets.extend(more.iter().map(|set| (*set).to_owned()));
    let sources = Sources {
        sets,
        ..Sources::default()
    };
    let (route, sink) = route::load(&sources, "w1").unwrap_or_else(|problems| panic!("{problems}"));
    (route.steps, sink)
}

fn steps() -> Steps {
    let projection = format!("projection={PROJECTION}");
    load(&["sink.type=blackhole", &projection]).0
}

fn plan() -> Plan {
    let mut fields = Fields::default();
    Plan {
        index: Template::parse("plays", &mut fields).expect("a fixed name"),
        id: Id::Offset,
        op: Op::Create,
        later_wins: false,
        fields,
    }
}

/// As many kept events as a batch holds, with their projections.
fn projected() -> Vec<(String, Vec<u8>)> {
    let steps = steps();
    let mut decider = Decider::new(&steps);
    let mut project = |number| {
        let event = events::kept(number);
        let mut out = Vec::new();
        let decision = decider.decide(&Record::of(event.as_bytes()), &mut out);
        assert_eq!(decision, Decision::KeepRewritten);
        (event, out)
    };
    (0..BATCH).map(&mut project).collect()
}

/// A full batch of kept events.
fn kept_batch() -> Batch {
    built(&projected(), &mut BatchBuilder::default())
}

/// A batch of these originals and projections.
fn built(events: &[(String, Vec<u8>)], builder: &mut BatchBuilder) -> Batch {
    let topic: Arc<str> = "events".into();
    let run = events.len() / PARTITIONS as usize;
    for (number, (original, projected)) in events.iter().enumerate() {
        let (partition, offset) = ((number / run) as i32, number as i64);
        let claim = builder.claim(&topic, partition, 1, offset);
        let start = builder.arena().len();
        builder.arena().extend_from_slice(projected);
        let meta = RecordMeta {
            offset,
            timestamp: Some(1_795_428_000_000 + offset),
            key: Some(&original.as_bytes()[7..27]),
        };
        let original = Some(original.as_bytes());
        builder.keep_projected(claim, start, meta, original, std::iter::empty());
    }
    builder.finish(BatchId::new(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_runs_more_than_once() {
        for case in CASES {
            let mut round = (case.make)();
            round();
            round();
        }
    }

    #[test]
    fn a_batch_holds_all_its_events() {
        let batch = kept_batch();
        assert_eq!(batch.len() as u64, BATCH);
        assert_eq!(batch.claims().len(), PARTITIONS as usize);
    }
}
