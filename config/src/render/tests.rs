use super::{markdown, sample};
use crate::fixture::table;
use crate::{Sources, flaws, resolve};

#[test]
fn the_page_names_everything_about_an_option() {
    let page = markdown(&table());
    assert!(page.starts_with("# Options\n"));
    let expected = "
### `delivery.batch.max.age.ms`

What it does.

- Allowed: a number of milliseconds from 1 to 600000
- Default: by `delivery.tradeoff`: low-latency `5`, balanced `500`, no-duplicates `5000`
- Environment: `KEYSTONE_DELIVERY_BATCH_MAX_AGE_MS`
";
    assert!(page.contains(expected), "{page}");
    assert!(page.contains("## Sink: Kafka\n\nIn use where `sink.type` is `kafka`.\n"));
    assert!(page.contains("- Default: none\n- Environment: `KEYSTONE_ADMIN_PASSWORD`\n- Secret\n"));
    assert!(page.contains("### `sink.kafka.<name>`\n"));
    assert!(page.contains("- Environment: `KEYSTONE_SINK_KAFKA_<NAME>`"));
    assert!(page.contains("  - `kafka.enable.auto.commit`: the worker commits what is settled\n"));
    assert!(page.contains("`source.topics=^events\\\\..*`"));
}

#[test]
fn the_sample_resolves_as_it_is() {
    let text = sample(&table());
    let settings = resolve(
        &table(),
        &Sources {
            file: Some(("sample".into(), text.clone())),
            ..Sources::default()
        },
    )
    .unwrap();
    assert!(settings.warnings().is_empty());
    assert_eq!(settings.get("source.topics"), "^events\\..*");
    assert_eq!(settings.get("sink.type"), "kafka");
    assert!(
        text.contains("\n#sink.parquet.location=file:///data\n"),
        "{text}"
    );
    assert!(text.contains("\n#delivery.batch.max.age.ms=500\n"));
    assert!(text.lines().all(|line| line.chars().count() <= 130));
}

#[test]
fn every_default_and_example_of_the_sample_is_allowed() {
    let text: String = sample(&table())
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.ends_with('=') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let sources = |set: &str| Sources {
        file: Some(("sample".into(), text.clone())),
        sets: vec![set.into()],
        ..Sources::default()
    };
    for sink in ["kafka", "parquet"] {
        resolve(&table(), &sources(&format!("sink.type={sink}")))
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    }
}

#[test]
fn the_table_of_the_tests_has_no_flaws_and_flaws_are_found() {
    assert_eq!(flaws(&table()), Vec::<String>::new());
    let mut table = table();
    table.sections.push(table.sections[3]);
    table.sections[2].when = Some(("sink.type", "kafak"));
    table.sections[3].when = Some(("sink.typ", "kafka"));
    let flaws = flaws(&table).join("\n");
    assert!(
        flaws.contains("sink.parquet.rows: has the environment name of sink.parquet.rows"),
        "{flaws}"
    );
    assert!(
        flaws.contains(
            "Sink: Kafka: depends on sink.type=kafak: `kafak` is not known; did you mean `kafka`?"
        ),
        "{flaws}"
    );
    assert!(
        flaws.contains("Sink: Parquet: depends on sink.typ, which is not declared"),
        "{flaws}"
    );
}
