//! Fields that the sink asks for, against the keys that the projection makes: a typing error in either would be columns full of nulls, or a
//! dead letter for each event. Nothing is said where the projection is not written as `{key: …}`: its keys are known with the events only.

use keystone_config::{Problem, Settings, nearest};
use keystone_dsl::Program;
use keystone_sinks::parquet::partition::Partitioning;
use keystone_sinks::parquet::schema::parse_columns;
use keystone_sinks::template::{Fields, Template};

const SCHEMA: &str = "sink.parquet.schema";
const PARTITION_BY: &str = "sink.parquet.partition.by";
const INDEX: &str = "sink.elasticsearch.index";
const ID: &str = "sink.elasticsearch.id";

/// Fields without which no event can be delivered.
pub(super) fn problems(settings: &Settings, program: &Program) -> Vec<Problem> {
    let Some(keys) = program.projected_keys() else {
        return Vec::new();
    };
    let times = partitioning(settings).map(|by| by.time_sources().map(str::to_owned).collect());
    [
        (PARTITION_BY, times.unwrap_or_default(), Case::Either),
        (INDEX, index_fields(settings), Case::Exact),
        (ID, id_field(settings), Case::Exact),
    ]
    .into_iter()
    .filter_map(|(key, wanted, case)| {
        let missing = missing(&wanted, &keys, case)?;
        Some(settings.problem(
            key,
            format!("each event would be a dead letter: the projection makes no {missing}"),
            "fields are looked up in what the projection made: add the key to it, or name another field",
        ))
    })
    .collect()
}

/// Fields without which events are delivered all the same.
pub(super) fn warnings(settings: &Settings, program: &Program) -> Vec<String> {
    let Some(keys) = program.projected_keys() else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let columns = settings
        .text(SCHEMA)
        .and_then(|text| parse_columns(text).ok());
    let columns: Vec<String> = columns
        .into_iter()
        .flatten()
        .map(|column| column.name)
        .collect();
    if let Some(missing) = missing(&columns, &keys, Case::Either) {
        warnings.push(format!(
            "{SCHEMA}: the projection makes no {missing}: such a column is null in each row"
        ));
    }
    // Those of times are problems.
    let sources = partitioning(settings).map(|by| by.sources().to_vec());
    if let Some(missing) = missing(&sources.unwrap_or_default(), &keys, Case::Either) {
        warnings.push(format!(
            "{PARTITION_BY}: the projection makes no {missing}: each event counts as one without it"
        ));
    }
    warnings.iter().map(|text| settings.redact(text)).collect()
}

/// How a sink finds a field by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Exact,
    Either,
}

/// Which fields no key fills, in words, each with the key that may have been meant.
fn missing(wanted: &[String], keys: &[String], case: Case) -> Option<String> {
    let is_same = |key: &str, name: &str| {
        key == name || (case == Case::Either && key.to_lowercase() == name.to_lowercase())
    };
    let mut missing: Vec<String> = wanted
        .iter()
        .filter(|name| !keys.iter().any(|key| is_same(key, name)))
        .map(
            |name| match nearest(name, keys.iter().map(String::as_str)) {
                Some(key) => format!("`{name}` (did you mean `{key}`?)"),
                None => format!("`{name}`"),
            },
        )
        .collect();
    missing.dedup();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// The options' own checks have parsed them before, here and below.
fn partitioning(settings: &Settings) -> Option<Partitioning> {
    Partitioning::parse(settings.text(PARTITION_BY)?).ok()
}

/// Of a path only the first name is looked for: what a key's value holds is not known.
fn index_fields(settings: &Settings) -> Vec<String> {
    let mut fields = Fields::default();
    if let Some(text) = settings.text(INDEX) {
        let _checked = Template::parse(text, &mut fields);
    }
    fields.paths().iter().map(|path| first(path)).collect()
}

fn id_field(settings: &Settings) -> Vec<String> {
    match settings.text(ID) {
        None | Some("auto" | "topic-partition-offset") => Vec::new(),
        Some(path) => vec![first(path)],
    }
}

fn first(path: &str) -> String {
    path.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use keystone_config::Sources;

    use super::super::load;
    use super::super::tests::{assert_refused, assert_taken};

    const LAKE: [&str; 3] = [
        "sink.type=parquet",
        "sink.parquet.location=file:///nowhere",
        "projection={event_id: id, ts: time, user: user.id}",
    ];
    const SEARCH: [&str; 3] = [
        "sink.type=elasticsearch",
        "sink.elasticsearch.urls=http://127.0.0.1:1",
        "projection={event_id: id, ts: time, user: user}",
    ];

    fn warnings(sets: &[&str]) -> Vec<String> {
        let route = "route.name = r\nsource.topics = in\nkafka.bootstrap.servers = 127.0.0.1:1\n";
        let sources = Sources {
            defaults: None,
            file: Some(("r.properties".to_owned(), route.to_owned())),
            env: Vec::new(),
            sets: LAKE
                .iter()
                .chain(sets)
                .map(|set| (*set).to_owned())
                .collect(),
        };
        match load(&sources, "w") {
            Ok((route, _)) => route.warnings(),
            Err(problems) => panic!("{problems}"),
        }
    }

    #[test]
    fn a_column_that_no_key_fills_is_a_warning() {
        assert_eq!(
            warnings(&["sink.parquet.schema=eventid string, TS timestamp, usr string, other int"]),
            [
                "sink.parquet.schema: the projection makes no `eventid` (did you mean `event_id`?), `usr` (did you mean `user`?), `other`: such a column is null in each row"
            ]
        );
        let schema = "sink.parquet.schema=Event_Id string";
        assert!(warnings(&[schema]).is_empty());
        assert!(warnings(&["sink.parquet.schema=x int", "projection=@"]).is_empty());
        assert_eq!(
            warnings(&[
                schema,
                "sink.parquet.partition.by=dt={ts:%F}, usr, u={user.name}"
            ]),
            [
                "sink.parquet.partition.by: the projection makes no `usr` (did you mean `user`?): each event counts as one without it"
            ]
        );
    }

    #[test]
    fn a_field_that_no_event_can_go_without_is_a_problem() {
        let with = |route: &[&'static str], set: &'static str| [route, &[set]].concat();
        let schema = with(&LAKE, "sink.parquet.schema=event_id string");
        for set in [
            "sink.parquet.partition.by=dt={TS:%F}",
            "sink.parquet.partition.by=dt={ts.a:%F}",
        ] {
            assert_taken(&with(&schema, set));
        }
        assert_refused(
            &with(&schema, "sink.parquet.partition.by=dt={tss:%F}"),
            &[
                "sink.parquet.partition.by: each event would be a dead letter: the projection makes no `tss` (did you mean `ts`?)",
            ],
        );
        let search = with(&SEARCH, "sink.elasticsearch.index=e-{user.name}-{ts:%Y}");
        assert_taken(&with(&search, "sink.elasticsearch.id=event_id"));
        assert_taken(&with(&search, "sink.elasticsearch.id=auto"));
        assert_refused(
            &with(&search, "sink.elasticsearch.id=Event_id"),
            &[
                "sink.elasticsearch.id: ",
                "no `Event_id` (did you mean `event_id`?)",
            ],
        );
        assert_refused(
            &with(&SEARCH, "sink.elasticsearch.index=e-{time:%Y}"),
            &[
                "sink.elasticsearch.index: ",
                "the projection makes no `time`",
            ],
        );
    }
}
