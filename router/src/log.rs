//! Log lines: text or JSON on standard error, each with the route.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Formats a line. Threads and tasks of many kinds log, so the route is part of the format, not of a span that each would have to enter.
pub struct RouteFormat {
    pub route: String,
    pub json: bool,
}

/// The message and the fields of one line.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = plain(&value),
            // Fields that the `log` bridge adds say where in a library a line comes from.
            name if name.starts_with("log.") => {}
            name => self.others.push((name, value)),
        }
    }
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl<S, N> FormatEvent<S, N> for RouteFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let level = *event.metadata().level();
        let line = if self.json {
            self.json(&time, level, &fields)
        } else {
            self.text(&time, level, &fields)
        };
        writeln!(writer, "{line}")
    }
}

impl RouteFormat {
    fn json(&self, time: &str, level: Level, fields: &Fields) -> String {
        let mut line = serde_json::Map::new();
        line.insert("time".into(), time.into());
        line.insert("level".into(), level.as_str().to_lowercase().into());
        line.insert("route".into(), self.route.as_str().into());
        line.insert("message".into(), fields.message.as_str().into());
        for (name, value) in &fields.others {
            line.insert((*name).into(), value.clone());
        }
        Value::Object(line).to_string()
    }

    fn text(&self, time: &str, level: Level, fields: &Fields) -> String {
        let mut line = format!("{time} {level:<5} {}: {}", self.route, fields.message);
        for (name, value) in &fields.others {
            let value = plain(value);
            let _written = if value.contains(' ') {
                write!(line, " {name}={value:?}")
            } else {
                write!(line, " {name}={value}")
            };
        }
        // One line each, whatever a server's message contains.
        line.replace('\n', "\\n")
    }
}
