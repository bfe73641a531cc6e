use proptest::prelude::*;
use serde_json::json;

use super::*;

fn render(by: &str, event: &Value) -> Result<String, String> {
    let partitioning = Partitioning::parse(by).unwrap();
    let sources: Vec<Option<Value>> = partitioning
        .sources()
        .iter()
        .map(|source| event.get(source).cloned())
        .collect();
    let mut path = String::new();
    partitioning
        .render(&sources, &mut Cache::default(), &mut path)
        .map(|()| path)
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

#[test]
fn the_hourly_cache_never_shows() {
    let partitioning = Partitioning::parse("dt={ts:%Y-%m-%d}/{ts:%H},m={ts:%M}").unwrap();
    let mut cache = Cache::default();
    for minutes in [0, 1, 59, 60, 61, -1, -60, -61, 90, 0] {
        let sources = [Some(json!(1_795_431_600 + minutes * 60))];
        let (mut cached, mut fresh) = (String::new(), String::new());
        partitioning
            .render(&sources, &mut cache, &mut cached)
            .unwrap();
        partitioning
            .render(&sources, &mut Cache::default(), &mut fresh)
            .unwrap();
        assert_eq!(cached, fresh);
    }
}

proptest! {
    #[test]
    fn any_value_comes_back_from_its_path(value in "\\PC{1,20}|[ -~\\x00-\\x1f]{1,20}") {
        let partitioning = Partitioning::parse("a,b").unwrap();
        let sources = [Some(json!(value)), Some(json!("x"))];
        let mut path = String::new();
        partitioning.render(&sources, &mut Cache::default(), &mut path).unwrap();
        prop_assert_eq!(path.matches('/').count(), 1, "{}", path);
        prop_assert!(!path.contains(|c: char| c.is_ascii_control()));
        prop_assert_eq!(partitioning.values(&path), Some(vec![value, "x".to_owned()]));
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
