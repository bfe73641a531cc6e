//! One fault under several cells at once: produce, break, heal, drain, judge.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::proxy::Mode;
use crate::{Error, Events, Kafka, Result, Stream, wait_for};

use super::route::{Route, SLOW_PRODUCER};
use super::servers::Servers;
use super::watch::{Reader, Watch};
use super::{Cell, Dice, Fault, Outcome, Sink};

pub(super) const PARTITIONS: i32 = 8;
/// Events a second; one in six is kept.
const RATE: u64 = 3_000;
/// More than any round produces.
const MOST: u64 = 2_000_000;
/// One bad event comes with this many others, of which one in six is kept.
const BAD_EVERY: u64 = 594;
/// Until the first commit, and from the healing until all is committed.
const WORK: Duration = Duration::from_secs(240);
/// Longer than the session timeout of the routes.
const OUTAGE: Duration = Duration::from_secs(10);
/// Longer than that timeout, too.
const LATE: Duration = Duration::from_secs(8);
/// How long the sink's server is away.
const SINK_OUTAGE: Duration = Duration::from_secs(8);
/// How long it hangs: a request to an object store may take 60 s.
const HANG: Duration = Duration::from_secs(75);
/// How long it is slow.
const SLOW: Duration = Duration::from_secs(120);
/// Bytes a second and connection that it takes then: all connections together take less than is kept of the events.
const SLOW_RATE: u32 = 2_000;
/// The same for topics: a quota for all producers of this round together.
const SLOW_QUOTA: u32 = 20_000;
/// For a busy worker to answer with its metrics.
const ANSWER: Duration = Duration::from_secs(15);
/// A clock that is ahead by an hour makes every event at least this old, in seconds.
const AHEAD: f64 = 3_000.0;
/// How long the producer goes on after the healing.
const AFTER: Duration = Duration::from_secs(2);
/// While the sink is slow 60,000 events of 620 bytes come that are kept. A worker that held them would grow by more.
const GROWTH: u64 = 32 * 1024 * 1024;
/// Each file that is open on its way to a bucket has a part of its upload in memory, and rows that are not in it yet.
const GROWTH_WITH_FILES: u64 = 64 * 1024 * 1024;
pub(super) const TICK: Duration = Duration::from_millis(50);

/// Runs a fault under these cells, all at once. An error is a fault of the battery itself; what a cell got wrong is in its outcome.
pub fn run(
    servers: &mut Servers,
    fault: Fault,
    cells: &[Cell],
    seed: u64,
) -> Result<Vec<(Cell, Outcome)>> {
    servers.rounds += 1;
    let topic = format!("faults-{}", servers.rounds);
    servers.kafka.server.create_topic(&topic, PARTITIONS, &[])?;
    let mut dice = Dice(seed ^ crate::events::mixed(fault as u64));
    let cells = cells.iter().filter(|cell| fault.applies_to(cell.sink));
    let routes = cells.map(|cell| Route::start(servers, fault, *cell, &topic));
    let mut routes = routes.collect::<Result<Vec<Route>>>()?;
    for route in &routes {
        route.wait_assigned(PARTITIONS)?;
    }
    let bootstrap = servers.kafka.server.bootstrap();
    let bad = move |count: u64| {
        let is_bad = fault.has_bad_events() && count.is_multiple_of(BAD_EVERY);
        is_bad.then(|| (bad_key(count), bad_event(fault, &bad_key(count))))
    };
    let events = Events::new(seed, MOST);
    let source = Stream::start(events.clone(), &bootstrap, &topic, RATE, bad)?;
    let watches = routes
        .iter()
        .map(|route| Watch::start(&bootstrap, &route.name, &topic));
    let watches = watches.collect::<Result<Vec<Watch>>>()?;
    wait_for(WORK, "every group has committed", || {
        match watches.iter().all(|watch| watch.committed() > 0) {
            true => Ok(()),
            false => Err(Error::new("not yet")),
        }
    })?;
    watches.iter().for_each(Watch::begin);
    let readers: Vec<_> = routes.iter().map(Route::reader).collect();
    make(servers, fault, &mut routes, &mut dice)?;
    has_arrived(fault, &routes)?;
    supervise(&mut routes, AFTER)?;
    let count = source.stop()?;
    let bad = bad_keys(fault, count);
    drained(servers, &mut routes, &watches, &topic)?;
    let stalls: Vec<Duration> = watches.into_iter().map(Watch::end).collect();
    has_lasted(fault, &routes, &stalls)?;
    for (route, reader) in routes.iter_mut().zip(readers) {
        route.finish()?;
        route.problems.extend(reader.and_then(Reader::end));
    }
    if fault == Fault::Pressure && servers.refused()? == 0 {
        return Err(Error::new(
            "Elasticsearch has refused nothing: its limit is too high",
        ));
    }
    let expected = events.expected_in(0..count);
    let mut outcomes = Vec::new();
    for (mut route, stall) in routes.into_iter().zip(stalls) {
        let verdict = route.judge(servers, expected.clone())?;
        check(servers, fault, &mut route, &verdict, &bad)?;
        let allowed = (!route.cell.is_exact()).then_some(route.exposed);
        outcomes.push((
            route.cell,
            Outcome {
                expected: verdict.expected,
                lost: verdict.lost.len() as u64,
                duplicates: verdict.duplicated.len() as u64,
                allowed,
                stall,
                restarts: route.ended.len(),
                problems: route.problems,
            },
        ));
    }
    Ok(outcomes)
}

/// The promises.
fn check(
    servers: &Servers,
    fault: Fault,
    route: &mut Route,
    verdict: &crate::Verdict,
    bad: &BTreeSet<String>,
) -> Result<()> {
    if !verdict.is_complete() {
        route
            .problems
            .push(format!("the sink does not hold what it should: {verdict}"));
    }
    let twice = match fault.is_of_workers() {
        true => verdict.repeated(),
        // One event may be tried, and written, more than once.
        false => verdict.duplicated.len() as u64,
    };
    let ended = route.ended.iter();
    let told = ended.filter(|last| !route.cell.may_end(last));
    let told = told.map(|last| format!("a worker ended by itself: {last}"));
    route.problems.extend(told);
    if route.cell.is_exact() && twice > 0 {
        route
            .problems
            .push(format!("events are there twice: {verdict}"));
    }
    if !route.cell.is_exact() && twice > route.exposed {
        let exposed = route.exposed;
        route.problems.push(format!(
            "more is there twice than the {exposed} exposed events: {verdict}"
        ));
    }
    let letters = route.dead_letters(servers)?;
    if letters != *bad {
        let (found, sent) = (letters.len(), bad.len());
        route.problems.push(format!(
            "{found} dead letters for {sent} bad events, or not the same"
        ));
    }
    if fault == Fault::MetastoreDown && route.cell.sink == Sink::Parquet {
        let table = route.name.replace('-', "_");
        let metastore = servers.metastore.as_ref();
        if metastore.is_none_or(|metastore| metastore.table("default", &table).is_err()) {
            route
                .problems
                .push(format!("the metastore has no table {table}"));
        }
    }
    Ok(())
}

/// Makes the fault and heals it.
fn make(servers: &mut Servers, fault: Fault, routes: &mut [Route], dice: &mut Dice) -> Result<()> {
    match fault {
        Fault::Kill | Fault::KillBucket | Fault::Terminate => {
            for _ in 0..3 {
                for route in routes.iter_mut() {
                    supervise(std::slice::from_mut(route), dice.between(TICK, 8 * TICK))?;
                    match fault {
                        Fault::Terminate => route.terminate_one(dice, &servers.kafka.server)?,
                        _ => route.kill_one(dice, &servers.kafka.server)?,
                    }
                    route.join()?;
                }
                supervise(routes, dice.between(20 * TICK, 80 * TICK))?;
            }
            Ok(())
        }
        Fault::ComeAndGo | Fault::NewProtocol => {
            come_and_go(&servers.kafka.server, fault, routes, dice)
        }
        Fault::BrokerRestart => {
            let away = dice.between(10 * TICK, 60 * TICK);
            let kafka = &mut servers.kafka.server;
            outlast(routes, || {
                kafka.stop();
                std::thread::sleep(away);
                kafka.restart()
            })
        }
        Fault::BrokerFrozen => {
            let kafka = &mut servers.kafka.server;
            outlast(routes, || {
                kafka.pause()?;
                std::thread::sleep(OUTAGE);
                kafka.resume()
            })
        }
        Fault::BrokerUnreachable | Fault::BrokerHalf | Fault::BrokerLate => {
            let proxy = &servers.kafka.proxy;
            let mode = match fault {
                Fault::BrokerHalf => Mode::Half,
                Fault::BrokerLate => Mode::Delay(LATE),
                _ => Mode::Refuse,
            };
            outlast(routes, || {
                proxy.set(mode);
                std::thread::sleep(OUTAGE);
                proxy.set(Mode::Pass);
                Ok(())
            })
        }
        Fault::SinkRestart => outlast(routes, || {
            if let Some(place) = &mut servers.elasticsearch {
                place.server.stop();
            }
            if let Some(place) = &mut servers.s3 {
                place.server.stop();
                place.server.restart()?;
            }
            match &mut servers.elasticsearch {
                Some(place) => place.server.restart(),
                None => Ok(()),
            }
        }),
        Fault::SinkUnreachable => sink_is(servers, Mode::Refuse, SINK_OUTAGE, routes),
        Fault::SinkHangs => sink_is(servers, Mode::BlackHole, HANG, routes),
        Fault::SinkUnavailable => sink_is(servers, Mode::Unavailable, SINK_OUTAGE, routes),
        Fault::SinkLate => {
            let late = Mode::Delay(Duration::from_secs(3));
            sink_is(servers, late, SINK_OUTAGE, routes)
        }
        Fault::SinkSlow => slow(servers, routes),
        Fault::Pressure | Fault::Conflict | Fault::Undeliverable => outlast(routes, || {
            std::thread::sleep(SINK_OUTAGE);
            Ok(())
        }),
        Fault::DiskFull => {
            let disk = servers.need_disk()?;
            outlast(routes, || {
                disk.fill()?;
                std::thread::sleep(SINK_OUTAGE);
                disk.make_room()
            })
        }
        Fault::ClockJumps => {
            let clock = servers.need_clock()?;
            outlast(routes, || {
                for offset in ["+1h", "-1h", "+0"] {
                    clock.set(offset)?;
                    std::thread::sleep(SINK_OUTAGE / 2);
                }
                Ok(())
            })
        }
        Fault::MetastoreDown => match &mut servers.metastore {
            Some(metastore) => outlast(routes, || {
                metastore.stop();
                std::thread::sleep(SINK_OUTAGE);
                metastore.restart()
            }),
            None => Ok(()),
        },
    }
}

/// Whether the workers have met the fault, as far as their metrics tell.
fn has_arrived(fault: Fault, routes: &[Route]) -> Result<()> {
    // An outage of a bucket for a moment is waited out by its client, within a call of the sink.
    let retries: &[_] = &[
        "keystone_retries_total",
        "keystone_parquet_failed_requests_total",
    ];
    let (metrics, least) = match fault {
        Fault::SinkUnreachable
        | Fault::SinkUnavailable
        | Fault::SinkLate
        | Fault::Pressure
        | Fault::DiskFull => (retries, 1.0),
        Fault::ClockJumps => (&["keystone_delivery_latency_max_seconds"][..], AHEAD),
        _ => return Ok(()),
    };
    for route in routes {
        let what = format!("the fault has reached {}", route.name);
        wait_for(ANSWER, &what, || {
            let found: f64 = metrics.iter().map(|metric| route.gauge(metric)).sum();
            match found < least {
                true => Err(Error::new(format!("{metrics:?} add up to {found}"))),
                false => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// Whether the workers have met a server that is away, as far as commits tell.
fn has_lasted(fault: Fault, routes: &[Route], stalls: &[Duration]) -> Result<()> {
    let is_away = match fault {
        // Away for a moment only.
        Fault::BrokerRestart => false,
        Fault::SinkHangs => true,
        other => other.is_of_the_broker(),
    };
    let mut cells = routes.iter().zip(stalls);
    match cells.find(|(_, stall)| is_away && **stall < LATE) {
        Some((route, stall)) => Err(Error::new(format!(
            "the fault has not reached {}: it stood for {stall:?} only",
            route.name
        ))),
        None => Ok(()),
    }
}

/// Makes a fault that lasts, on a thread of its own, and heals it. Meanwhile the workers go on with what they hold, so the most that they
/// ever announced counts: as soon as they lose their partitions they announce nothing any more.
fn outlast(routes: &mut [Route], fault: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let mut peaks = vec![0; routes.len()];
    let healed = std::thread::scope(|scope| {
        let fault = scope.spawn(fault);
        while !fault.is_finished() {
            for (route, peak) in routes.iter_mut().zip(&mut peaks) {
                *peak = route.exposure().max(*peak);
                route.restart_ended()?;
            }
            std::thread::sleep(TICK);
        }
        fault
            .join()
            .map_err(|_| Error::new("the thread that made the fault panicked"))?
    });
    for (route, peak) in routes.iter_mut().zip(peaks) {
        route.exposed += peak;
    }
    healed
}

/// About once a second a worker joins or leaves each group, which has one to three.
fn come_and_go(kafka: &Kafka, fault: Fault, routes: &mut [Route], dice: &mut Dice) -> Result<()> {
    let may_be_killed = fault == Fault::NewProtocol;
    for _ in 0..8 {
        for route in routes.iter_mut() {
            let joins = match route.workers.len() {
                1 => true,
                3 => false,
                _ => dice.below(2) == 0,
            };
            match joins {
                true => route.join()?,
                false if may_be_killed && dice.below(2) == 0 => route.kill_one(dice, kafka)?,
                false => route.terminate_one(dice, kafka)?,
            }
        }
        supervise(routes, dice.between(12 * TICK, 28 * TICK))?;
    }
    Ok(())
}

fn set(servers: &Servers, mode: Mode) {
    if let Some(place) = &servers.elasticsearch {
        place.proxy.set(mode);
    }
    if let Some(place) = &servers.s3 {
        place.proxy.set(mode);
    }
}

fn sink_is(servers: &Servers, mode: Mode, time: Duration, routes: &mut [Route]) -> Result<()> {
    outlast(routes, || {
        set(servers, mode);
        std::thread::sleep(time);
        set(servers, Mode::Pass);
        Ok(())
    })
}

/// The sink takes a fraction of what comes: memory stays flat, the lag is told, and nobody leaves the group.
fn slow(servers: &Servers, routes: &mut [Route]) -> Result<()> {
    let kafka = &servers.kafka.server;
    let rebalances = |route: &Route| route.gauge("keystone_rebalances_total");
    let before: Vec<f64> = routes.iter().map(rebalances).collect();
    kafka.set_producer_quota(SLOW_PRODUCER, Some(SLOW_QUOTA))?;
    let memory = routes.iter().map(Route::memory);
    let memory = memory.collect::<Result<Vec<u64>>>()?;
    set(servers, Mode::Throttle(SLOW_RATE));
    outlast(routes, || {
        std::thread::sleep(SLOW);
        Ok(())
    })?;
    for ((route, before), memory) in routes.iter_mut().zip(before).zip(memory) {
        if rebalances(route) != before {
            route
                .problems
                .push("the group rebalanced while the sink was slow".to_owned());
        }
        if route.gauge("keystone_lag_events") < RATE as f64 {
            route.problems.push("the lag was not reported".to_owned());
        }
        let grown = route.memory()?.saturating_sub(memory);
        let most = match route.cell.sink {
            Sink::Parquet => GROWTH_WITH_FILES,
            _ => GROWTH,
        };
        if grown > most {
            route.problems.push(format!(
                "the worker's memory grew by {} MiB meanwhile",
                grown >> 20
            ));
        }
    }
    set(servers, Mode::Pass);
    kafka.set_producer_quota(SLOW_PRODUCER, None)
}

/// Lets time go by; workers that end meanwhile are started again.
fn supervise(routes: &mut [Route], time: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        for route in routes.iter_mut() {
            route.restart_ended()?;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Waits until each group has committed all of the topic.
fn drained(servers: &Servers, routes: &mut [Route], watches: &[Watch], topic: &str) -> Result<()> {
    let end: i64 = servers.kafka.server.end_offsets(topic)?.values().sum();
    wait_for(WORK, "everything is committed", || {
        for (route, watch) in routes.iter_mut().zip(watches) {
            route.restart_ended()?;
            if watch.committed() < end {
                let log = route.workers.first().map(|worker| worker.stderr_tail());
                let (name, committed) = (&route.name, watch.committed());
                return Err(Error::new(format!(
                    "{name} has committed {committed} of {end}\n{}",
                    log.unwrap_or_default()
                )));
            }
        }
        Ok(())
    })
}

/// The keys of the bad events among so many.
fn bad_keys(fault: Fault, count: u64) -> BTreeSet<String> {
    let is_bad = |number: &u64| fault.has_bad_events() && number.is_multiple_of(BAD_EVERY);
    (1..=count).filter(is_bad).map(bad_key).collect()
}

fn bad_key(number: u64) -> String {
    format!("bad-{number}")
}

fn bad_event(fault: Fault, id: &str) -> String {
    match fault {
        Fault::Conflict => format!(
            r#"{{"id":"{id}","type":"play","duration_ms":40000,"user":{{"id":1}},"content":{{"title":{{"not":"a text"}}}},"geo":{{"country":"DE"}}}}"#
        ),
        _ => format!(r#"{{"id":"{id}","cut":"#),
    }
}
