//! The worker's place in its group: what `/readyz` says when it is lost, when commits fail, and while a group merely rebalances.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use keystone::state::lock;
use rdkafka::ClientConfig;
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::bench::{Bench, Running, together};
use crate::scripted::{Act, Scripted};

#[test]
fn membership() {
    together(&[
        ("a_coordinator_that_is_away", a_coordinator_that_is_away),
        ("commits_that_fail", commits_that_fail),
        (
            "a_group_that_is_not_the_users",
            a_group_that_is_not_the_users,
        ),
        ("a_cooperative_rebalance", || {
            a_rebalance("rebalance-cooperative", &[]);
        }),
        ("an_eager_rebalance", || {
            let eager = ["kafka.partition.assignment.strategy=range"];
            a_rebalance("rebalance-eager", &eager);
        }),
    ]);
}

/// A cluster of the scenario's own, whose first broker leads everything.
fn own_cluster(name: &str, brokers: i32) -> MockCluster<'static, DefaultProducerContext> {
    let own = MockCluster::new(brokers).expect("the mock cluster starts");
    own.create_topic(name, 1, 1).expect("the topic is made");
    own.partition_leader(name, 0, Some(1))
        .expect("the leader is chosen");
    own
}

fn is_ready(running: &Running) -> bool {
    running.get("/readyz") == (200, "ok\n".to_owned())
}

/// Whether `/readyz` has a line that begins and goes on like this.
fn complains(running: &Running, of: &str, with: &str) -> bool {
    let (code, text) = running.get("/readyz");
    let is_it = |line: &str| line.starts_with(of) && line.contains(with);
    code == 503 && text.lines().any(is_it)
}

/// The group's coordinator is away, and the broker that leads the partitions is not.
fn a_coordinator_that_is_away() {
    let bench = Bench::new("coordinator-away", 1);
    let own = own_cluster(&bench.name, 2);
    let coordinate = |broker| {
        own.coordinator(MockCoordinator::Group(bench.name.clone()), broker)
            .expect("a coordinator is chosen");
    };
    coordinate(2);
    let servers = format!("kafka.bootstrap.servers={}", own.bootstrap_servers());
    let sink = Scripted::new(&bench.record, |_| Act::done());
    let options = [&*servers, "kafka.session.timeout.ms=20000"];
    let running = bench.start(sink, &options);
    running.until("it is ready", || is_ready(&running));
    own.broker_down(2).expect("the coordinator goes");
    running.until("it says so before the session is over", || {
        complains(
            &running,
            "group: the coordinator of group coordinator-away can't be reached",
            "__consumer_offsets",
        )
    });
    assert!(lock(&running.shared.membership).is_member());
    running.until("it has lost its place, and why", || {
        complains(
            &running,
            "group: this worker is not in group coordinator-away any more (Consumer group session timed out",
            "it has no partitions until the group takes it in again",
        )
    });
    assert!(!lock(&running.shared.membership).is_member());
    assert!(running.shared.offsets().keys().is_empty());
    coordinate(1);
    running.until("the group has taken it in again", || is_ready(&running));
    running.until("it has its partition", || {
        running.shared.offsets().keys().len() == 1
    });
    running.stop().expect("drained");
}

/// The broker refuses commits, and nothing else.
fn commits_that_fail() {
    const REFUSAL: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE;
    let bench = Bench::new("commits-fail", 1);
    let own = own_cluster(&bench.name, 1);
    let servers = own.bootstrap_servers();
    let sink = Scripted::new(&bench.record, |_| Act::done());
    let option = format!("kafka.bootstrap.servers={servers}");
    let running = bench.start(sink, &[&option]);
    running.until("it is ready", || is_ready(&running));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &servers)
        .create()
        .expect("a producer can be made");
    let produce = || {
        let record = BaseRecord::<[u8], [u8]>::to(&bench.name).payload(b"{}");
        let sent = producer.send(record).map_err(|(error, _)| error);
        sent.expect("the record is queued");
        producer.flush(Duration::from_secs(30)).expect("produced");
    };
    let failures = || {
        let failures = &running.shared.commit_failures;
        failures.load(Ordering::Relaxed)
    };
    // Refused a few times, as while a group rebalances.
    own.request_errors(RDKafkaApiKey::OffsetCommit, &[REFUSAL; 3]);
    produce();
    running.until("all is committed", || {
        running.shared.commits.load(Ordering::Relaxed) > 0
    });
    assert!((1..=3).contains(&failures()), "{}", failures());
    assert!(running.shared.troubles.now().is_empty());
    own.request_errors(RDKafkaApiKey::OffsetCommit, &[REFUSAL; 100_000]);
    produce();
    running.until("it says so", || {
        complains(
            &running,
            "commits: the offsets of group commits-fail are not committed: ",
            "delivered again after a restart",
        )
    });
    own.clear_request_errors(RDKafkaApiKey::OffsetCommit);
    running.until("the next commit succeeds", || is_ready(&running));
    running.stop().expect("drained");
}

/// The user of the route has no right to its group, which has a name of its own.
fn a_group_that_is_not_the_users() {
    let bench = Bench::new("no-right", 1);
    let own = own_cluster(&bench.name, 1);
    own.request_errors(
        RDKafkaApiKey::JoinGroup,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 100],
    );
    let servers = format!("kafka.bootstrap.servers={}", own.bootstrap_servers());
    let sink = Scripted::new(&bench.record, |_| Act::done());
    let options = [&*servers, "kafka.group.id=of-others"];
    let error = bench
        .start(sink, &options)
        .ended()
        .expect_err("it has to stop");
    assert!(error.contains("as group of-others: "), "{error}");
}

/// One worker more than partitions comes and goes: each of them is ready all the time, and who has no partition is, too.
fn a_rebalance(name: &str, options: &[&str]) {
    let bench = Bench::new(name, 1);
    let start = || bench.start(Scripted::new(&bench.record, |_| Act::done()), options);
    let held = |running: &Running| running.shared.offsets().keys().len();
    let one = start();
    one.until("the first is ready", || is_ready(&one));
    let two = start();
    two.until("the second is ready", || {
        assert!(is_ready(&one), "{:?}", one.get("/readyz"));
        is_ready(&two)
    });
    // Longer than trouble takes to be told of.
    let now = Instant::now();
    one.until("a while has passed", || {
        assert!(is_ready(&one) && is_ready(&two));
        now.elapsed() > Duration::from_secs(8)
    });
    assert_eq!(held(&one) + held(&two), 1, "one stands by");
    let (stays, goes) = match held(&one) {
        1 => (two, one),
        _ => (one, two),
    };
    goes.stop().expect("drained");
    stays.until("the other has the partition", || {
        assert!(is_ready(&stays), "{:?}", stays.get("/readyz"));
        held(&stays) == 1
    });
    stays.stop().expect("drained");
}
