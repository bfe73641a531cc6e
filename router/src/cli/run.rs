//! `keystone run`: the worker.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use super::{Failure, RouteArgs, worker_id};
use crate::cli::output::complain;
use crate::log::RouteFormat;
use crate::route::{self, Route};
use crate::worker::Worker;

pub(super) fn run(args: &RouteArgs) -> Result<(), Failure> {
    let sources = args.sources()?;
    let (route, sink) = route::load(&sources, &worker_id())?;
    start_logging(&route);
    end_on_panic();
    for warning in route.warnings() {
        tracing::warn!("{warning}");
    }
    let is_json = route.settings.get("log.format") == "json";
    Worker::new(route, sink)
        .and_then(|worker| {
            worker.stop_on_signals()?;
            worker.run()
        })
        .map(drop)
        .map_err(|reason| match is_json {
            // Who collects the lines reads each as JSON.
            true => {
                tracing::error!("{reason}");
                Failure::Logged
            }
            false => Failure::Failed(reason),
        })
}

/// Logs go to standard error, as text or JSON.
pub(super) fn start_logging(route: &Route) {
    let level = match route.settings.get("log.level") {
        "error" => Level::ERROR,
        "warn" => Level::WARN,
        "debug" => Level::DEBUG,
        "trace" => Level::TRACE,
        _ => Level::INFO,
    };
    let format = RouteFormat {
        route: route.name.clone(),
        json: route.settings.get("log.format") == "json",
    };
    let subscriber = tracing_subscriber::fmt()
        // They would be told of on standard error, which may be what can't be written: a panic then.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .event_format(format)
        .finish()
        .with(targets(level));
    // Fails only where a subscriber is set already, which then stays.
    let _first = tracing::subscriber::set_global_default(subscriber);
}

/// Libraries tell of each request that they repeat and the like as information: only with `debug` and `trace` is it asked for.
fn targets(level: Level) -> Targets {
    let libraries = match level {
        Level::INFO => Level::WARN,
        other => other,
    };
    Targets::new()
        .with_default(libraries)
        .with_target("keystone", level)
}

/// A panic ends the process: a crash is a clean replay, a thread that is gone is a hang.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        complain!("keystone has a bug and ends; what is not committed is delivered again: {panic}");
        std::process::exit(1);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_inform_only_where_more_is_asked_for() {
        let library = "object_store::client::retry";
        for (level, lowest) in [
            (Level::ERROR, Level::ERROR),
            (Level::WARN, Level::WARN),
            (Level::INFO, Level::WARN),
            (Level::DEBUG, Level::DEBUG),
            (Level::TRACE, Level::TRACE),
        ] {
            let shown = targets(level);
            for own in ["keystone::worker", "keystone_sinks::parquet"] {
                assert!(shown.would_enable(own, &level), "{own} at {level}");
            }
            assert!(shown.would_enable(library, &lowest), "{level}");
            assert_eq!(
                shown.would_enable(library, &Level::INFO),
                lowest >= Level::INFO,
                "{level}"
            );
        }
    }
}
