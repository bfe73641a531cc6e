//! The worker's place in its consumer group. Pure: the time is told to it.
//!
//! librdkafka tells of a place that is lost by taking all partitions away, and of a new one by the next assignment. That the group's
//! coordinator is away it tells nobody; the statistics have it.

use std::time::{Duration, Instant};

use rdkafka::statistics::ConsumerGroup;

use crate::lasting::Lasting;

/// A coordinator that moves to another broker is away for some seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to look at where a coordinator does not come back by itself.
pub const ADVICE: &str = "if that lasts, see the brokers' logs, and whether all partitions of topic __consumer_offsets have leaders";

#[derive(Debug, Default)]
pub struct Membership {
    place: Place,
    away: Lasting,
    /// `group.protocol = consumer`: librdkafka does not tell of an assignment without partitions, so a coordinator that is there and takes
    /// nothing away is what shows a place.
    is_silent: bool,
    there: Lasting,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The group has not assigned anything to this worker, not even no partition.
    #[default]
    New,
    Member,
    /// It was a member.
    Lost,
}

/// Why the worker can't do its part in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    Lost,
    NoCoordinator,
}

impl Membership {
    pub fn new(is_silent: bool) -> Membership {
        Membership {
            is_silent,
            ..Membership::default()
        }
    }

    /// The group has assigned partitions, or none: a worker that stands by is a member, too.
    pub fn assigned(&mut self) {
        self.place = Place::Member;
        self.away.is_over();
    }

    /// All partitions were taken away without asking.
    pub fn lost(&mut self) {
        self.place = Place::Lost;
        self.there.is_over();
    }

    pub fn is_member(&self) -> bool {
        self.place == Place::Member
    }

    /// Whether nothing was ever assigned.
    pub fn is_new(&self) -> bool {
        self.place == Place::New
    }

    /// Looks at what librdkafka's statistics say while brokers can be reached. A member that rebalances is one all the time.
    pub fn look(&mut self, group: &ConsumerGroup, now: Instant) -> Option<Outside> {
        let is_up = group.state == "up";
        if is_up && group.join_state == "steady" && self.place == Place::Lost {
            // Its topics were deleted, and the partitions lost with them: the place was not. (What was steady before a loss is served before it.)
            self.place = Place::Member;
        }
        match is_up {
            true => self.away.is_over(),
            false => self.there.is_over(),
        }
        if self.is_silent && is_up && self.there.lasts(now, now, PATIENCE) {
            self.place = Place::Member;
        }
        let is_away = !is_up && self.away.lasts(now, now, PATIENCE);
        match self.place {
            Place::Lost => Some(Outside::Lost),
            _ => is_away.then_some(Outside::NoCoordinator),
        }
    }
}

impl Outside {
    /// For a person; `reason` is librdkafka's own for the last time that partitions were taken away, and may be empty.
    pub fn describe(self, group: &str, reason: &str) -> String {
        match self {
            Outside::Lost => {
                let reason = if reason.is_empty() {
                    String::new()
                } else {
                    format!(" ({reason})")
                };
                format!(
                    "this worker is not in group {group} any more{reason}: it has no partitions until the group takes it in again; {ADVICE}"
                )
            }
            Outside::NoCoordinator => format!(
                "the coordinator of group {group} can't be reached, though brokers can: without it no partitions are assigned and no offsets committed, \
                 and a worker loses its partitions after kafka.session.timeout.ms; {ADVICE}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(state: &str, join_state: &str) -> ConsumerGroup {
        ConsumerGroup {
            state: state.to_owned(),
            join_state: join_state.to_owned(),
            ..ConsumerGroup::default()
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Of the states that follow each other every two seconds, what is said in the end.
    fn after(membership: &mut Membership, states: &[(&str, &str)]) -> Option<Outside> {
        let mut now = Instant::now();
        let mut last = None;
        for (state, join_state) in states {
            last = membership.look(&says(state, join_state), now);
            now += seconds(2);
        }
        last
    }

    fn member() -> Membership {
        let mut membership = Membership::default();
        membership.assigned();
        membership
    }

    #[test]
    fn who_was_assigned_nothing_is_a_member_and_who_waits_for_the_first_assignment_is_not() {
        let mut membership = Membership::default();
        assert!(membership.is_new() && !membership.is_member());
        let joining = [("up", "wait-join"); 9];
        assert_eq!(after(&mut membership, &joining), None, "others may be slow");
        membership.assigned();
        assert!(!membership.is_new() && membership.is_member());
    }

    #[test]
    fn where_nothing_is_told_of_an_assignment_without_partitions_the_coordinator_shows_the_place() {
        let mut membership = Membership::new(true);
        assert_eq!(after(&mut membership, &[("up", "init"); 3]), None);
        assert!(membership.is_new(), "it may be refused yet");
        let away = [("wait-coord", "init")];
        assert_eq!(after(&mut membership, &away), None);
        assert_eq!(after(&mut membership, &[("up", "init"); 3]), None);
        assert!(membership.is_new(), "it was away in between");
        assert_eq!(after(&mut membership, &[("up", "init"); 4]), None);
        assert!(membership.is_member(), "a standby");
        membership.lost();
        let lost = Some(Outside::Lost);
        assert_eq!(after(&mut membership, &[("up", "init"); 3]), lost);
        assert_eq!(after(&mut membership, &[("up", "init"); 4]), None);
        assert!(membership.is_member());
    }

    #[test]
    fn a_rebalance_takes_no_member_out_however_long_it_takes() {
        for join_state in [
            "init",
            "wait-join",
            "wait-metadata",
            "wait-sync",
            "wait-assign-call",
            "wait-unassign-call",
        ] {
            let mut membership = member();
            assert_eq!(after(&mut membership, &[("up", join_state); 99]), None);
            assert!(membership.is_member());
        }
    }

    #[test]
    fn a_lost_place_is_told_of_until_the_next_assignment() {
        let mut membership = member();
        membership.lost();
        assert!(!membership.is_member() && !membership.is_new());
        let states = [
            ("query-coord", "init"),
            ("wait-coord", "init"),
            ("up", "init"),
            ("up", "wait-join"),
        ];
        for state in states {
            assert_eq!(after(&mut membership, &[state]), Some(Outside::Lost));
        }
        membership.assigned();
        assert_eq!(after(&mut membership, &[("up", "steady")]), None);
        assert!(membership.is_member());
    }

    #[test]
    fn partitions_lost_with_their_topics_leave_the_place() {
        let mut membership = member();
        membership.lost();
        assert_eq!(after(&mut membership, &[("up", "steady")]), None);
        assert!(membership.is_member());
        // What was steady before the coordinator went does not count.
        membership.lost();
        assert_eq!(
            after(&mut membership, &[("query-coord", "steady")]),
            Some(Outside::Lost)
        );
    }

    #[test]
    fn a_coordinator_that_is_away_is_told_of_if_that_lasts() {
        let away = Some(Outside::NoCoordinator);
        let moving = [
            ("query-coord", "steady"),
            ("wait-broker-transport", "steady"),
            ("wait-coord", "steady"),
        ];
        for mut membership in [Membership::default(), member()] {
            assert_eq!(after(&mut membership, &moving), None);
            assert_eq!(after(&mut membership, &[("up", "steady")]), None);
            assert_eq!(
                after(&mut membership, &moving),
                None,
                "it was there in between"
            );
            membership.assigned();
            let long = [moving, moving].concat();
            assert_eq!(after(&mut membership, &long), away);
            assert_eq!(after(&mut membership, &[("up", "steady")]), None);
        }
    }

    #[test]
    fn it_is_said_which_group_and_why() {
        let lost = Outside::Lost.describe("plays", "session timed out");
        assert!(
            lost.starts_with("this worker is not in group plays any more (session timed out): it has no partitions until"),
            "{lost}"
        );
        let lost = Outside::Lost.describe("plays", "");
        assert!(
            lost.starts_with("this worker is not in group plays any more: it"),
            "{lost}"
        );
        let away = Outside::NoCoordinator.describe("plays", "");
        assert!(
            away.starts_with("the coordinator of group plays can't be reached"),
            "{away}"
        );
        for text in [lost, away] {
            assert!(text.contains("__consumer_offsets"), "{text}");
        }
    }
}
