use proptest::prelude::*;
use serde_json::json;

use super::*;

fn render(by: &str, event: &Value) -> Result<String, String> {
    let partitioning = Partitioning::parse(by).unwrap();
    let sources = sources(&partitioning, event);
    let mut cache = Cache::default();
    let rendered = partitioning.render(&sources, &mut cache)?;
    Ok(rendered.path.to_owned())
}

fn sources(partitioning: &Partitioning, event: &Value) -> Vec<Option<Value>> {
    let names = partitioning.sources().iter();
    names.map(|source| event.get(source).cloned()).collect()
}

/// Times around the ends of hours, and what is no time.
fn moment() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (-70..70_i64).prop_map(|minutes| json!(1_795_431_600 + minutes * 60)),
        1 => Just(json!("soon")),
        1 => Just(json!(null)),
    ]
}

#[test]
fn events_of_one_hour_are_of_the_partition_before() {
    for (by, expected) in [
        ("h={ts:%H}", true),
        ("m={ts:%M}", false),
        ("h={ts:%H},c", false),
    ] {
        let partitioning = Partitioning::parse(by).unwrap();
        let mut cache = Cache::default();
        let sources = sources(&partitioning, &json!({"ts": 1_795_431_600, "c": "x"}));
        assert!(!partitioning.render(&sources, &mut cache).unwrap().is_last);
        let second = partitioning.render(&sources, &mut cache).unwrap();
        assert_eq!(second.is_last, expected, "{by}");
    }
}

#[test]
fn times_and_fields_make_the_path() {
    let event =
        json!({"ts": "2026-11-23T12:05:06+01:00", "country": "SE", "meta": {"app": 7, "ok": true}});
    for (by, path) in [
        ("dt={ts:%Y-%m-%d},hour={ts:%H}", "dt=2026-11-23/hour=11"),
        (" dt = {ts:%Y-%m-%d} , country ", "dt=2026-11-23/country=SE"),
        ("app=v{meta.app}-{meta.ok}", "app=v7-true"),
        ("minute={ts:%H:%M}", "minute=11%3A05"),
        ("odd={ts:%Y,%m}", "odd=2026,11"),
        ("gone={meta.gone}", "gone=__HIVE_DEFAULT_PARTITION__"),
    ] {
        assert_eq!(render(by, &event).as_deref(), Ok(path), "{by}");
    }
}

#[test]
fn a_bad_time_is_an_error_and_a_missing_plain_field_is_hives_default() {
    let by = "dt={ts:%Y-%m-%d}";
    assert!(render(by, &json!({})).unwrap_err().contains("no field ts"));
    let error = render(by, &json!({"ts": "yesterday"})).unwrap_err();
    assert!(error.contains("partition column dt"), "{error}");
    assert!(
        error.contains("the string \"yesterday\" in field ts is not a time"),
        "{error}"
    );
    for empty in [json!({}), json!({"c": null}), json!({"c": ""})] {
        assert_eq!(render("c", &empty).unwrap(), "c=__HIVE_DEFAULT_PARTITION__");
    }
    assert!(
        render("c", &json!({"c": [1]}))
            .unwrap_err()
            .contains("must be a text")
    );
    assert!(
        render("c", &json!({"c": "x".repeat(300)}))
            .unwrap_err()
            .contains("longer than")
    );
}

#[test]
fn mistakes_in_the_option_are_named() {
    for (by, part) in [
        ("", "empty"),
        ("dt={ts:%Y},", "empty"),
        ("dt={ts", "lacks a closing brace"),
        ("dt=ts}", "without an opening one"),
        ("dt=constant", "has no placeholder"),
        ("dt={}", "names no field"),
        ("dt={a..b}", "names no field"),
        ("dt={ts:%Q}", "is not a time format"),
        ("dt={ts:}", "is not a time format"),
        ("d-t={ts:%Y}", "is not a column name"),
        ("dt={ts:%Y}, DT={ts:%m}", "stands twice"),
    ] {
        let error = Partitioning::parse(by).unwrap_err();
        assert!(error.contains(part), "{by}: {error}");
    }
}

proptest! {
    /// Whatever came before, events that are none among it.
    #[test]
    fn what_is_kept_from_event_to_event_never_shows(
        by in prop::sample::select(vec![
            "dt={ts:%Y-%m-%d},hour={ts:%H}",
            "dt={ts:%Y-%m-%d}/{ts:%H},m={ts:%M}",
            "hour={ts:%H},ended={to:%H}",
            "dt={to:%Y-%m-%d},c",
            "c",
        ]),
        events in prop::collection::vec((moment(), moment(), prop::sample::select(vec!["x", "y"])), 1..20)
    ) {
        let partitioning = Partitioning::parse(by).unwrap();
        let mut cache = Cache::default();
        let mut last = None;
        for (ts, to, c) in events {
            let event = json!({"ts": ts, "to": to, "c": c});
            let sources = sources(&partitioning, &event);
            let kept = partitioning.render(&sources, &mut cache);
            let fresh = render(by, &event);
            if let Ok(kept) = &kept {
                prop_assert!(!kept.is_last || last.as_deref() == Some(kept.path));
            }
            let kept = kept.map(|rendered| rendered.path.to_owned());
            prop_assert_eq!(&kept, &fresh);
            last = fresh.ok().or(last);
        }
    }

    #[test]
    fn any_value_comes_back_from_its_path(value in "\\PC{1,20}|[ -~\\x00-\\x1f]{1,20}") {
        let partitioning = Partitioning::parse("a,b").unwrap();
        let sources = [Some(json!(value)), Some(json!("x"))];
        let mut cache = Cache::default();
        let path = partitioning.render(&sources, &mut cache).unwrap().path;
        prop_assert_eq!(path.matches('/').count(), 1, "{}", path);
        prop_assert!(!path.contains(|c: char| c.is_ascii_control()));
        prop_assert_eq!(partitioning.values(path), Some(vec![value, "x".to_owned()]));
    }
}

#[test]
fn paths_of_other_tables_have_no_values() {
    let partitioning = Partitioning::parse("dt={ts:%Y-%m-%d},hour={ts:%H}").unwrap();
    for path in [
        "",
        "dt=1",
        "dt=1/h=2",
        "dt=1/hour=",
        "dt=1/hour=2/x=3",
        "hour=2/dt=1",
    ] {
        assert_eq!(partitioning.values(path), None, "{path}");
    }
    assert_eq!(Partitioning::default().values(""), Some(Vec::new()));
}
