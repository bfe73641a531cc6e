//! A sink that is overloaded and says so.

use std::time::{Duration, Instant};

use keystone_tests::elasticsearch::Options;
use keystone_tests::proxy::{Mode, Proxy, Visit};
use keystone_tests::{Elasticsearch, Events, Judge, Kafka, Result, Worker};

use crate::scenario::{
    Outgoing, WORK, all_committed, assert_ledger, counter, drain, send, to_elasticsearch, topic_of,
};

const LANES: usize = 2;
const IN_FLIGHT: usize = 8;
const DECREASES: &str = "keystone_sink_concurrency_decreases_total";

fn limit(worker: &Worker) -> Result<usize> {
    let limit = worker
        .metrics()?
        .sum("keystone_sink_concurrency_limit", &[]);
    Ok(limit as usize)
}

/// Elasticsearch has room for a few of the large batches and for all of the small ones: fewer requests are under way with the large ones,
/// and more again with the small ones.
#[test]
fn requests_follow_the_room_that_elasticsearch_has() -> Result<()> {
    let kafka = Kafka::shared()?;
    let pressure = ("indexing_pressure.memory.limit", "1mb");
    let server = Elasticsearch::start(Options {
        settings: vec![(pressure.0.to_owned(), pressure.1.to_owned())],
        ..Options::default()
    })?;
    kafka.create_topic("overload-in", 4, &[])?;
    let padding = "x".repeat(10_000);
    let large: Vec<String> = (0..3_000)
        .map(|n| format!(r#"{{"n":{n},"padding":"{padding}"}}"#))
        .collect();
    let large: Vec<_> = large
        .iter()
        .map(|event| Outgoing::new(event.as_str()))
        .collect();
    send(kafka, "overload-in", &large)?;
    let mut worker = Worker::spawn(&format!(
        "route.name = overload\nsource.topics = overload-in\nkafka.bootstrap.servers = {}\nsink.type = elasticsearch\n\
         sink.elasticsearch.urls = {}\nsink.elasticsearch.index = overload\ndelivery.lanes = {LANES}\n\
         delivery.max.in.flight = {IN_FLIGHT}\ndelivery.batch.max.events = 25\n",
        kafka.bootstrap(),
        server.url()
    ))?;
    worker.wait_until(WORK, "the first events are there", |worker| {
        Ok(counter(worker, "consumed")? > 0)
    })?;
    let begun = Instant::now();
    all_committed(kafka, "overload", "overload-in", &mut [&mut worker])?;
    let seconds = begun.elapsed().as_secs_f64();
    let metrics = worker.metrics()?;
    let lowered = metrics.sum(DECREASES, &[("reason", "http_429")]);
    let refused = metrics.sum(
        "keystone_retries_total",
        &[("part", "sink"), ("reason", "http_429")],
    );
    let low = limit(&worker)?;
    eprintln!(
        "{:.0} large events a second; limit {low} after {refused} refusals, lowered {lowered} times",
        large.len() as f64 / seconds
    );
    assert!(lowered > 0.0 && refused >= lowered);
    assert!(low < LANES * IN_FLIGHT, "{low}");
    let small: Vec<String> = (0..40_000).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    let small: Vec<_> = small
        .iter()
        .map(|event| Outgoing::new(event.as_str()))
        .collect();
    send(kafka, "overload-in", &small)?;
    worker.wait_until(WORK, "the limit has risen again", |worker| {
        Ok(limit(worker)? > low)
    })?;
    all_committed(kafka, "overload", "overload-in", &mut [&mut worker])?;
    eprintln!("limit {} after the small batches", limit(&worker)?);
    assert_eq!(counter(&worker, "delivered")?, 43_000);
    assert_eq!(counter(&worker, "dead_lettered")?, 0);
    assert_ledger(&mut worker)?;
    drain(worker)?;
    server.request("POST", "/overload/_refresh", None)?;
    assert_eq!(server.count("overload")?, 43_000);
    Ok(())
}

/// Seconds that the proxy asks for in the server's place.
const PAUSE: u32 = 3;
/// Requests that come this long after an answer were on their way.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Whoever is asked to wait sends nothing before that time is over, with none of 16 calls; what comes then is delivered exactly.
#[test]
fn the_servers_pause_holds_for_all_calls() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    let proxy = Proxy::to(server.port())?;
    // The worker asks once at its start whether the sink is there; the pause is not for that.
    let first = Events::new(5, 100);
    topic_of(kafka, "pause-in", &first)?;
    let mut worker = start(kafka, &proxy, "pause", 100)?;
    all_committed(kafka, "pause", "pause-in", &mut [&mut worker])?;
    proxy.set(busy(503));
    let events = Events::new(6, 20_000);
    events.produce(&kafka.bootstrap(), "pause-in")?;
    let pause = Duration::from_secs(PAUSE.into());
    for (status, next) in [(503, busy(429)), (429, Mode::Pass)] {
        let begun = Instant::now();
        let rounds = format!("calls were answered {status} over two pauses and more");
        worker.wait_until(WORK, &rounds, |_| {
            let answered = refusals(&proxy).into_iter().map(|(_, answered)| answered);
            let answered: Vec<Instant> = answered.filter(|at| *at > begun).collect();
            let over = answered.last().zip(answered.first());
            Ok(over.is_some_and(|(last, first)| last.duration_since(*first) > 2 * pause))
        })?;
        proxy.set(next);
    }
    all_committed(kafka, "pause", "pause-in", &mut [&mut worker])?;
    let visits = proxy.visits();
    let refused = refusals(&proxy);
    let together = |(visit, answered): &(Visit, Instant)| {
        let during = visit.arrived..*answered;
        let arrived = refused.iter().map(|(other, _)| other.arrived);
        arrived.filter(|at| during.contains(at)).count() > 1 // Itself among them.
    };
    let together = refused.iter().any(together);
    assert!(together, "several calls were under way");
    for (visit, answered) in refused {
        let early = |other: &&Visit| {
            let since = other.arrived.saturating_duration_since(answered);
            since > UNDER_WAY && since < pause
        };
        let early = visits.iter().find(early);
        assert!(early.is_none(), "{early:?} after {visit:?}");
    }
    assert_ledger(&mut worker)?;
    drain(worker)?;
    let mut expected = first.expected();
    expected.extend(events.expected());
    let mut judge = Judge::new(expected, "event_id");
    judge.elasticsearch(server, "pause")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// Answers that take far longer than they did lower the limit mildly; when they are quick again, it rises.
#[test]
fn requests_follow_the_latency_of_elasticsearch() -> Result<()> {
    let kafka = Kafka::shared()?;
    let server = Elasticsearch::shared()?;
    let proxy = Proxy::to(server.port())?;
    let events = Events::new(7, 80_000);
    kafka.create_topic("latency-in", 8, &[])?;
    // One in six is kept: enough requests for the first slow ones of a new index to be forgotten.
    events.produce_in(&kafka.bootstrap(), "latency-in", 0..40_000)?;
    let mut worker = start(kafka, &proxy, "latency", 50)?;
    all_committed(kafka, "latency", "latency-in", &mut [&mut worker])?;
    let before = limit(&worker)?;
    proxy.set(Mode::Delay(Duration::from_secs(5)));
    events.produce_in(&kafka.bootstrap(), "latency-in", 40_000..60_000)?;
    worker.wait_until(WORK, "slow answers have lowered the limit", |worker| {
        let reason = [("reason", "slow")];
        let lowered = worker.metrics()?.sum(DECREASES, &reason);
        Ok(lowered > 0.0 && limit(worker)? < before)
    })?;
    let low = limit(&worker)?;
    proxy.set(Mode::Pass);
    // It rises with requests that succeed.
    events.produce_in(&kafka.bootstrap(), "latency-in", 60_000..80_000)?;
    worker.wait_until(WORK, "the limit has risen again", |worker| {
        Ok(limit(worker)? > low)
    })?;
    all_committed(kafka, "latency", "latency-in", &mut [&mut worker])?;
    eprintln!(
        "limit {before}, {low} with slow answers, {} at the end",
        limit(&worker)?
    );
    drain(worker)?;
    let mut judge = Judge::new(events.expected(), "event_id");
    judge.elasticsearch(server, "latency")?;
    judge.verdict().assert_exact();
    Ok(())
}

/// A worker that delivers the topic `NAME-in` to the index of the name through the proxy, in batches of so many events.
fn start(kafka: &Kafka, proxy: &Proxy, name: &str, batch: usize) -> Result<Worker> {
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let route = to_elasticsearch(kafka, name, &format!("{name}-in"), &url, name);
    Worker::spawn(&format!(
        "{route}delivery.lanes = {LANES}\ndelivery.max.in.flight = {IN_FLIGHT}\ndelivery.batch.max.events = {batch}\n"
    ))
}

fn busy(status: u16) -> Mode {
    Mode::Busy {
        status,
        retry_after: PAUSE,
    }
}

/// Connections that the proxy answered in the server's place, in the order of their arrival, and when it did.
fn refusals(proxy: &Proxy) -> Vec<(Visit, Instant)> {
    let visits = proxy.visits().into_iter();
    visits
        .filter_map(|visit| Some((visit, visit.refused?)))
        .collect()
}
