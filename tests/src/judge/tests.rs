use super::*;
use crate::Events;
use arrow::array::{Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use std::sync::Arc;

fn expected() -> HashMap<String, String> {
    [
        ("a", r#"{"id":"a","n":1}"#),
        ("b", r#"{"id":"b","n":2}"#),
        ("c", r#"{"id":"c","n":3}"#),
    ]
    .map(|(id, content)| (id.to_owned(), content.to_owned()))
    .into()
}

fn verdict(delivered: &[&str]) -> Verdict {
    let mut judge = Judge::new(expected(), "id");
    delivered.iter().for_each(|content| judge.saw(content));
    judge.verdict()
}

#[test]
fn all_that_is_expected_and_nothing_else_is_exact() {
    let verdict = verdict(&[
        r#"{"id":"c","n":3}"#,
        r#"{"id":"a","n":1}"#,
        r#"{"id":"b","n":2}"#,
    ]);
    verdict.assert_exact();
    assert_eq!(
        (verdict.expected, verdict.delivered, verdict.repeated()),
        (3, 3, 0)
    );
}

#[test]
fn a_lost_event_is_named() {
    let verdict = verdict(&[r#"{"id":"c","n":3}"#, r#"{"id":"a","n":1}"#]);
    assert_eq!(verdict.lost, ["b"]);
    assert!(!verdict.is_complete());
    assert!(
        verdict.to_string().contains("1 lost") && verdict.to_string().contains("lost       b"),
        "{verdict}"
    );
}

#[test]
fn a_duplicate_is_counted_and_does_not_hide_a_loss() {
    let twice = r#"{"id":"a","n":1}"#;
    let verdict = verdict(&[twice, twice, twice]);
    assert_eq!(verdict.duplicated, [("a".to_owned(), 3)]);
    assert_eq!(verdict.repeated(), 2);
    assert_eq!(verdict.lost, ["b", "c"]);
}

#[test]
fn duplicates_alone_are_complete_but_not_exact() {
    let verdict = verdict(&[
        r#"{"id":"a","n":1}"#,
        r#"{"id":"a","n":1}"#,
        r#"{"id":"b","n":2}"#,
        r#"{"id":"c","n":3}"#,
    ]);
    verdict.assert_complete();
    assert!(!verdict.is_exact());
}

#[test]
fn a_wrong_content_is_shown_with_what_was_expected() {
    for wrong in [
        r#"{"id":"b","n":3}"#,
        r#"{"n":2,"id":"b"}"#,
        r#"{"id":"b","n":2.0}"#,
        r#"{"id":"b", "n":2}"#,
    ] {
        let verdict = verdict(&[r#"{"id":"a","n":1}"#, wrong, r#"{"id":"c","n":3}"#]);
        let shown = Wrong {
            expected: r#"{"id":"b","n":2}"#.to_owned(),
            found: wrong.to_owned(),
        };
        assert_eq!(verdict.wrong, [("b".to_owned(), shown)]);
        assert!(verdict.lost.is_empty() && !verdict.is_complete());
    }
}

#[test]
fn a_second_delivery_with_another_content_is_wrong_too() {
    let verdict = verdict(&[
        r#"{"id":"a","n":1}"#,
        r#"{"id":"a","n":9}"#,
        r#"{"id":"b","n":2}"#,
        r#"{"id":"c","n":3}"#,
    ]);
    assert_eq!(verdict.wrong.len(), 1);
    assert!(!verdict.is_complete());
}

#[test]
fn what_nobody_expects_is_unexpected_with_or_without_an_id() {
    let mut delivered: Vec<&str> = vec![
        r#"{"id":"a","n":1}"#,
        r#"{"id":"b","n":2}"#,
        r#"{"id":"c","n":3}"#,
    ];
    delivered.extend([r#"{"id":"d","n":4}"#, "{\"id\":\"e", r#"{"id":7}"#]);
    let verdict = verdict(&delivered);
    let ids: Vec<&str> = verdict
        .unexpected
        .iter()
        .map(|(id, _)| id.as_str())
        .collect();
    assert_eq!(ids, ["d", "{\"id\":\"e", "{\"id\":7}"]);
    assert!(!verdict.is_complete());
}

#[test]
#[should_panic(expected = "1 lost")]
fn the_assertion_prints_the_verdict() {
    verdict(&[r#"{"id":"a","n":1}"#, r#"{"id":"b","n":2}"#]).assert_exact();
}

/// Rows of `Events`' projection, written by nothing of the project.
fn parquet_of(expected: &HashMap<String, String>) -> Vec<u8> {
    let rows: Vec<Value> = expected
        .values()
        .map(|content| serde_json::from_str(content).unwrap())
        .collect();
    let texts = |name: &str| {
        Arc::new(
            rows.iter()
                .map(|row| row[name].as_str())
                .collect::<StringArray>(),
        )
    };
    let numbers = |name: &str| {
        Arc::new(
            rows.iter()
                .map(|row| row[name].as_i64())
                .collect::<Int64Array>(),
        )
    };
    let batch = RecordBatch::try_from_iter([
        ("event_id", texts("event_id") as arrow::array::ArrayRef),
        ("user", numbers("user")),
        ("title", texts("title")),
        ("country", texts("country")),
        ("duration_ms", numbers("duration_ms")),
    ])
    .unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

#[test]
fn parquet_files_are_read_as_hive_reads_them() {
    let expected = Events::new(3, 3000).expected();
    let file = parquet_of(&expected);
    let table = tempfile::tempdir().unwrap();
    let partition = table.path().join("dt=2026-11-23/hour=10");
    std::fs::create_dir_all(&partition).unwrap();
    std::fs::write(partition.join("a.parquet"), &file).unwrap();
    std::fs::write(partition.join(".hidden.parquet"), &file[..100]).unwrap();
    std::fs::create_dir_all(table.path().join("_staging")).unwrap();
    std::fs::write(table.path().join("_staging/b.parquet"), &file).unwrap();

    let mut judge = Judge::new(expected.clone(), "event_id");
    judge.parquet(table.path()).unwrap();
    judge.verdict().assert_exact();

    // A file cut short is an error, not a file with fewer rows.
    std::fs::write(partition.join("b.parquet"), &file[..file.len() - 10]).unwrap();
    let error = Judge::new(expected, "event_id")
        .parquet(table.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("b.parquet"), "{error}");
}

#[test]
fn nulls_of_a_parquet_file_are_seen() {
    let batch = RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(StringArray::from(vec!["a"])) as arrow::array::ArrayRef,
        ),
        ("n", Arc::new(Int64Array::from(vec![None]))),
    ])
    .unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    assert_eq!(
        parquet_rows(file.into()).unwrap(),
        [r#"{"id":"a","n":null}"#]
    );
}
