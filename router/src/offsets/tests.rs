//! The window against a naive model that remembers every offset by itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn claim(generation: u64, offsets: Range<i64>) -> Claim {
    Claim {
        topic: "events".into(),
        partition: 0,
        generation,
        events: (offsets.end - offsets.start) as u32,
        offsets,
    }
}

fn key() -> PartitionKey {
    PartitionKey::new("events", 0)
}

#[test]
fn a_gap_holds_the_commit_back() {
    let mut offsets = Offsets::default();
    let generation = offsets.assign(key(), Some(10), Some(10));
    let claims = [10..20, 20..25, 25..40].map(|range| claim(generation, range));
    for claim in &claims {
        assert_eq!(offsets.track(claim), Tracking::Taken);
    }
    assert!(offsets.settle(&claims[2]));
    assert!(offsets.settle(&claims[1]));
    assert_eq!(offsets.committable(), []);
    assert!(offsets.settle(&claims[0]));
    assert_eq!(offsets.committable()[0].offset, 40);
    offsets.committed(&key(), 40);
    assert_eq!(offsets.committable(), []);
    assert_eq!(offsets.views()[0].exposed, 0);
}

#[test]
fn what_a_joint_commit_would_not_cover_refuses_it() {
    let mut offsets = Offsets::default();
    let generation = offsets.assign(key(), Some(0), Some(0));
    let claims = [0..10, 10..20, 20..30].map(|range| claim(generation, range));
    for claim in &claims {
        assert_eq!(offsets.track(claim), Tracking::Taken);
    }
    let then = |offsets: &Offsets, some: &[&Claim]| {
        let commits = offsets.committable_with(some.iter().copied())?;
        Some(
            commits
                .iter()
                .map(|commit| commit.offset)
                .collect::<Vec<_>>(),
        )
    };
    // The second is held while the first is under way: its events would be visible and its offset not committed.
    assert_eq!(then(&offsets, &[&claims[1]]), None);
    assert_eq!(then(&offsets, &[&claims[0], &claims[1]]), Some(vec![20]));
    assert_eq!(then(&offsets, &[]), Some(vec![]));
    assert!(offsets.settle(&claims[0]));
    assert_eq!(then(&offsets, &[&claims[2], &claims[1]]), Some(vec![30]));
    // Nothing was changed by asking.
    assert_eq!(offsets.committable()[0].offset, 10);
    offsets.revoke(&key());
    assert_eq!(then(&offsets, &[&claims[1]]), None);
}

#[test]
fn a_late_answer_of_a_lost_assignment_changes_nothing() {
    let mut offsets = Offsets::default();
    let first = offsets.assign(key(), Some(0), Some(0));
    let old = claim(first, 0..100);
    assert_eq!(offsets.track(&old), Tracking::Taken);
    offsets.revoke(&key());
    assert!(!offsets.settle(&old));
    let second = offsets.assign(key(), Some(0), Some(0));
    assert!(second > first);
    assert!(!offsets.settle(&old));
    assert_eq!(offsets.track(&old), Tracking::Stale);
    let new = claim(second, 0..50);
    assert_eq!(offsets.track(&new), Tracking::Taken);
    assert!(!offsets.settle(&old));
    assert!(offsets.settle(&new));
    assert_eq!(offsets.committable()[0].offset, 50);
}

#[test]
fn a_rewind_goes_back_to_the_lowest_unsettled_offset() {
    let mut offsets = Offsets::default();
    let first = offsets.assign(key(), Some(0), Some(0));
    let claims = [0..10, 10..20, 20..30].map(|range| claim(first, range));
    for claim in &claims {
        offsets.track(claim);
    }
    offsets.settle(&claims[0]);
    offsets.settle(&claims[2]);
    let (second, from) = offsets.rewind(&key()).unwrap();
    assert_eq!(from, Some(10));
    assert!(!offsets.settle(&claims[1]));
    assert_eq!(offsets.track(&claim(second, 10..30)), Tracking::Taken);
}

#[test]
fn where_a_group_without_commits_begins_is_committed_at_once() {
    let mut offsets = Offsets::default();
    offsets.assign(key(), Some(77), None);
    assert_eq!(offsets.committable()[0].offset, 77);
}

#[test]
fn a_topic_made_anew_is_read_from_its_new_beginning() {
    let mut offsets = Offsets::default();
    let generation = offsets.assign(key(), Some(500), Some(500));
    let first = claim(generation, 0..10);
    assert_eq!(offsets.track(&first), Tracking::Taken);
    assert!(offsets.settle(&first));
    assert_eq!(offsets.committable()[0].offset, 10);
}

/// The log is cut from 100 back to 80 and written again: what is new from 80 on is read, whatever was settled before.
#[test]
fn a_log_cut_short_is_read_again_from_the_cut() {
    let mut offsets = Offsets::default();
    let first = offsets.assign(key(), Some(0), Some(0));
    let read = claim(first, 0..100);
    offsets.track(&read);
    offsets.settle(&read);
    offsets.committed(&key(), 100);
    let in_flight = claim(first, 100..110);
    offsets.track(&in_flight);
    assert_eq!(offsets.track(&claim(first, 80..90)), Tracking::WentBack);
    assert!(!offsets.settle(&in_flight));
    assert_eq!(offsets.track(&claim(first, 110..120)), Tracking::Stale);
    let (second, from) = offsets.rewind(&key()).unwrap();
    assert_eq!(from, Some(80));
    let again = claim(second, 80..120);
    assert_eq!(offsets.track(&again), Tracking::Taken);
    assert!(offsets.settle(&again));
    assert_eq!(offsets.committable()[0].offset, 120);
}

#[derive(Debug, Clone)]
enum Step {
    Read {
        count: i64,
        gap: i64,
    },
    Settle(prop::sample::Index),
    Commit,
    /// To any commit so far.
    LateCommitAnswer(prop::sample::Index),
    Rewind,
    Reassign,
    /// The log is cut short here and written again.
    Cut(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..5i64, 0..3i64).prop_map(|(count, gap)| Step::Read { count, gap }),
        6 => any::<prop::sample::Index>().prop_map(Step::Settle),
        2 => Just(Step::Commit),
        1 => any::<prop::sample::Index>().prop_map(Step::LateCommitAnswer),
        1 => Just(Step::Rewind),
        1 => Just(Step::Reassign),
        1 => any::<prop::sample::Index>().prop_map(Step::Cut),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    /// No committed offset passes an unsettled event, whatever the order of reads, answers, rewinds and reassignments;
    /// and once all is settled, everything read can be committed. What is exposed is what was read and not committed since.
    #[test]
    fn no_commit_passes_an_unsettled_event(steps in steps()) {
        let mut offsets = Offsets::default();
        let mut generation = offsets.assign(key(), Some(0), Some(0));
        let mut next = 0;
        let mut committed = 0;
        let mut claims: Vec<Claim> = Vec::new();
        // The model: offsets read and not settled under the current generation; the group's commit lives on.
        let mut unsettled: BTreeSet<i64> = BTreeSet::new();
        let mut in_flight: BTreeMap<i64, i64> = BTreeMap::new();
        let mut exposed: BTreeSet<i64> = BTreeSet::new();
        let mut commits: Vec<i64> = Vec::new();
        let mut is_exact = true;
        for step in steps {
            match step {
                Step::Read { count, gap } => {
                    let claim = claim(generation, next + gap..next + gap + count);
                    prop_assert_eq!(offsets.track(&claim), Tracking::Taken);
                    unsettled.extend(claim.offsets.clone());
                    exposed.extend(claim.offsets.clone());
                    in_flight.insert(claim.offsets.start, claim.offsets.end);
                    next = claim.offsets.end;
                    claims.push(claim);
                }
                Step::Settle(index) if !claims.is_empty() => {
                    let claim = index.get(&claims).clone();
                    let current = claim.generation == generation
                        && in_flight.get(&claim.offsets.start) == Some(&claim.offsets.end);
                    prop_assert_eq!(offsets.settle(&claim), current);
                    if current {
                        in_flight.remove(&claim.offsets.start);
                        unsettled.retain(|offset| !claim.offsets.contains(offset));
                    }
                }
                Step::Settle(_) => {}
                Step::Commit => for commit in offsets.committable() {
                    prop_assert!(commit.offset >= committed);
                    committed = commit.offset;
                    commits.push(commit.offset);
                    offsets.committed(&key(), commit.offset);
                    exposed.retain(|offset| *offset >= committed);
                    is_exact = true;
                },
                Step::LateCommitAnswer(index) if !commits.is_empty() => {
                    let late = *index.get(&commits);
                    let settled = offsets.views()[0].settled;
                    offsets.committed(&key(), late);
                    if settled.is_some_and(|settled| committed < late && late <= settled) {
                        committed = late;
                        exposed.retain(|offset| *offset >= late);
                        is_exact = false;
                    }
                }
                Step::LateCommitAnswer(_) => {}
                Step::Rewind => {
                    let (new, from) = offsets.rewind(&key()).unwrap();
                    generation = new;
                    next = from.unwrap();
                    prop_assert!(next >= committed);
                    unsettled.clear();
                    in_flight.clear();
                    exposed.retain(|offset| *offset < next);
                }
                Step::Cut(index) => {
                    let cut = index.index(next as usize + 1) as i64;
                    let claim = claim(generation, cut..cut + 1);
                    match offsets.track(&claim) {
                        Tracking::Taken => {
                            // The cut is at the end, or begins a fresh window.
                            committed = committed.min(cut);
                            // What was written anew is another event.
                            if cut < next {
                                exposed.clear();
                            }
                            unsettled.insert(cut);
                            exposed.insert(cut);
                            in_flight.insert(cut, cut + 1);
                            next = cut + 1;
                            claims.push(claim);
                        }
                        Tracking::WentBack => {
                            let (new, from) = offsets.rewind(&key()).unwrap();
                            prop_assert!(from.unwrap() <= cut);
                            generation = new;
                            next = from.unwrap();
                            committed = committed.min(next);
                            unsettled.clear();
                            in_flight.clear();
                            exposed.clear();
                        }
                        Tracking::Stale => prop_assert!(false, "the generation is current"),
                    }
                }
                Step::Reassign => {
                    offsets.revoke(&key());
                    generation = offsets.assign(key(), Some(committed), Some(committed));
                    next = committed;
                    unsettled.clear();
                    in_flight.clear();
                    exposed.clear();
                }
            }
            if let Some(lowest) = unsettled.first() {
                prop_assert!(committed <= *lowest);
                for commit in offsets.committable() {
                    prop_assert!(commit.offset <= *lowest);
                }
            }
            let view = &offsets.views()[0];
            prop_assert_eq!(view.unsettled_claims, in_flight.len());
            prop_assert!(view.exposed >= exposed.len() as u64);
            // A commit in between takes off whole entries, of which many may be one by now.
            prop_assert!(view.exposed == exposed.len() as u64 || !is_exact);
            // What is settled behind one that is not takes no room.
            prop_assert!(offsets.claims() <= 2 * in_flight.len());
        }
        for claim in claims {
            offsets.settle(&claim);
        }
        for commit in offsets.committable() {
            committed = commit.offset;
        }
        prop_assert_eq!(committed, next);
    }
}

/// A commit of it would be refused, and with it those of all others.
#[test]
fn a_partition_that_may_not_be_read_is_left_out_of_commits() {
    let other = PartitionKey::new("events", 1);
    let mut offsets = Offsets::default();
    let generation = offsets.assign(key(), Some(10), None);
    offsets.assign(other.clone(), Some(7), None);
    let committable = |offsets: &Offsets| {
        let commits = offsets.committable().into_iter();
        commits
            .map(|commit| (commit.key, commit.offset))
            .collect::<Vec<_>>()
    };
    assert_eq!(committable(&offsets), [(key(), 10), (other.clone(), 7)]);
    let claim = claim(generation, 10..12);
    assert_eq!(offsets.track(&claim), Tracking::Taken);
    assert!(offsets.committable_with([&claim].into_iter()).is_some());

    let now = Instant::now();
    offsets.refuse(&key(), now);
    assert_eq!(committable(&offsets), [(other.clone(), 7)]);
    // A joint commit without its offset would make its events visible.
    assert_eq!(offsets.committable_with([&claim].into_iter()), None);
    offsets.forgive(now + REFUSED_FOR / 2);
    assert_eq!(committable(&offsets), [(other.clone(), 7)]);
    offsets.forgive(now + REFUSED_FOR);
    assert!(offsets.settle(&claim));
    assert_eq!(committable(&offsets), [(key(), 12), (other, 7)]);
}
