use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use proptest::prelude::*;
use serde_json::{Map, Number, json};

use super::*;
use crate::batch::{Batch, BatchBuilder, BatchId, RecordMeta};
use crate::parquet::schema::parse_columns;

const SCHEMA: &str = "id string, n bigint, x double, ok boolean, day date, at timestamp, \
    price decimal(12,3), tags array<string>, attrs map<string,bigint>, who struct<name:string,age:int>, raw binary";

fn batch(payloads: &[Option<String>]) -> Batch {
    let mut builder = BatchBuilder::default();
    let topic: Arc<str> = Arc::from("t");
    for (offset, payload) in payloads.iter().enumerate() {
        let claim = builder.claim(&topic, 0, 1, offset as i64);
        let meta = RecordMeta {
            offset: offset as i64,
            timestamp: None,
            key: None,
        };
        builder.keep(
            claim,
            meta,
            payload.as_deref().map(str::as_bytes),
            [].into_iter(),
        );
    }
    builder.finish(BatchId::new(1))
}

fn layout(schema: &str, by: &str) -> Layout {
    let partitioning = match by {
        "" => Partitioning::default(),
        by => Partitioning::parse(by).unwrap(),
    };
    Layout::new(parse_columns(schema).unwrap(), partitioning)
}

fn decode(layout: &Layout, payloads: &[&str]) -> Decoded {
    let payloads: Vec<Option<String>> = payloads.iter().map(|p| Some((*p).to_owned())).collect();
    layout.decode(batch(&payloads).events()).unwrap()
}

/// A file of it could never be written, and would be tried for ever.
#[test]
fn an_event_whose_partition_has_too_long_a_path_is_rejected() {
    let hourly = layout("id string", "day={ts:%F}");
    // Between others in the same hour, which the path is kept for.
    let events = [r#"{"ts":"2026-11-23T11:00:00Z"}"#; 2];
    let longest = "day=2026-11-23".len();
    let decoded = decode(&hourly.with_longest_path(longest), &events);
    assert_eq!((decoded.rejected.len(), decoded.groups.len()), (0, 1));
    let hourly = layout("id string", "day={ts:%F}");
    let decoded = decode(&hourly.with_longest_path(longest - 1), &events);
    assert_eq!((decoded.rejected.len(), decoded.groups.len()), (2, 0));

    let two = layout("id string", "a,b").with_longest_path(30);
    let events = [
        r#"{"a":"x","b":"y"}"#,
        r#"{"a":"//////","b":"yyyyyyyy"}"#,
        r#"{"a":"x","b":"y"}"#,
    ];
    let decoded = decode(&two, &events);
    assert_eq!(decoded.groups[0].rows.num_rows(), 2);
    assert_eq!(decoded.rejected[0].index, 1);
    let reason = &decoded.rejected[0].reason;
    assert!(
        reason.contains("has 31 bytes") && reason.contains("a=%2F"),
        "{reason}"
    );
}

/// A row read back as the JSON that its columns stand for.
fn row(rows: &RecordBatch, at: usize) -> Map<String, Value> {
    let mut out = Map::new();
    for (field, array) in rows.schema().fields().iter().zip(rows.columns()) {
        out.insert(field.name().clone(), cell(array.as_ref(), at));
    }
    out
}

fn cell(array: &dyn Array, at: usize) -> Value {
    use arrow::datatypes::DataType;
    if array.is_null(at) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => json!(array.as_string::<i32>().value(at)),
        DataType::Binary => json!(String::from_utf8_lossy(array.as_binary::<i32>().value(at))),
        DataType::Boolean => json!(array.as_boolean().value(at)),
        DataType::Int32 => json!(
            array
                .as_primitive::<arrow::datatypes::Int32Type>()
                .value(at)
        ),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(at)),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(at)),
        DataType::Date32 => json!(array.as_primitive::<Date32Type>().value(at)),
        DataType::Timestamp(..) => {
            json!(array.as_primitive::<TimestampMicrosecondType>().value(at))
        }
        DataType::Decimal128(..) => {
            json!(array.as_primitive::<Decimal128Type>().value(at).to_string())
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(at);
            (0..items.len()).map(|i| cell(items.as_ref(), i)).collect()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(at);
            let (keys, values) = (entries.column(0), entries.column(1));
            let pairs = (0..entries.len()).map(|i| {
                (
                    keys.as_string::<i32>().value(i).to_owned(),
                    cell(values.as_ref(), i),
                )
            });
            Value::Object(pairs.collect())
        }
        DataType::Struct(fields) => {
            let parts = array.as_struct();
            let pairs = fields.iter().zip(parts.columns());
            Value::Object(
                pairs
                    .map(|(field, part)| (field.name().clone(), cell(part.as_ref(), at)))
                    .collect(),
            )
        }
        other => panic!("{other}"),
    }
}

/// The rows as a Parquet file and back.
fn through_parquet(rows: &RecordBatch) -> RecordBatch {
    let mut bytes = Vec::new();
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    let reader = ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(
        bytes::Bytes::from(bytes),
    )
    .unwrap()
    .with_batch_size(rows.num_rows())
    .build()
    .unwrap();
    reader.into_iter().next().unwrap().unwrap()
}

#[derive(Debug, Clone)]
struct Model {
    json: Map<String, Value>,
    expected: Map<String, Value>,
}

/// An event that fits [`SCHEMA`], written in one of several ways, and what must stand in the row.
fn model() -> impl Strategy<Value = Model> {
    let text = "\\PC{0,8}|[a-z\"\\\\\n\t\u{0}é]{0,8}";
    let number = |text: String| Value::Number(text.parse::<Number>().unwrap());
    let n = prop_oneof![
        any::<i64>().prop_map(move |n| (number(n.to_string()), json!(n))),
        (-1000_i64..1000).prop_map(move |n| (number(format!("{n}.00")), json!(n))),
        (-1000_i64..1000).prop_map(move |n| (number(format!("{n}e3")), json!(n * 1000))),
    ];
    let x = prop_oneof![
        any::<f64>()
            .prop_filter("finite", |x| x.is_finite())
            .prop_map(move |x| (number(format!("{x:e}")), json!(x))),
        any::<i32>().prop_map(move |x| (number(x.to_string()), json!(f64::from(x)))),
    ];
    let day = (-10_000_i32..30_000).prop_map(|days| {
        let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap()
            + chrono::TimeDelta::days(days.into());
        (json!(date.format("%Y-%m-%d").to_string()), json!(days))
    });
    let at = prop_oneof![
        (100_000_000_000_i64..4_000_000_000_000).prop_map(|ms| (json!(ms), json!(ms * 1000))),
        (0_i64..4_000_000_000_000_000).prop_map(|us| {
            let time = chrono::DateTime::from_timestamp_micros(us).unwrap();
            (json!(time.to_rfc3339()), json!(us))
        }),
    ];
    let price = (-999_999_999_999_i64..=999_999_999_999, any::<bool>()).prop_map(
        move |(thousandths, quoted)| {
            let sign = if thousandths < 0 { "-" } else { "" };
            let digits = thousandths.unsigned_abs();
            let text = format!("{sign}{}.{:03}", digits / 1000, digits % 1000);
            let value = if quoted { json!(text) } else { number(text) };
            (value, json!(thousandths.to_string()))
        },
    );
    let tags = prop::collection::vec(prop::option::of(text), 0..3)
        .prop_map(|tags| (json!(tags), json!(tags)));
    let attrs = prop::collection::hash_map(text, prop::option::of(any::<i64>()), 0..3)
        .prop_map(|attrs| (json!(attrs), json!(attrs)));
    let who = (
        prop::option::of(text),
        prop::option::of(any::<i32>()),
        any::<bool>(),
    )
        .prop_map(|(name, age, extra)| {
            let mut json = json!({"name": name});
            if let Some(age) = age {
                json["age"] = json!(age);
            }
            if extra {
                json["more"] = json!([{}]);
            }
            (json, json!({"name": name, "age": age}))
        });
    let id = text.prop_map(|text| (json!(text), json!(text)));
    let ok = any::<bool>().prop_map(|ok| (json!(ok), json!(ok)));
    (id, n, x, ok, day, at, price, tags, attrs, who, any::<u16>()).prop_map(
        |(id, n, x, ok, day, at, price, tags, attrs, who, drop)| {
            let mut model = Model {
                json: Map::new(),
                expected: Map::new(),
            };
            let names = [
                "id", "n", "x", "ok", "day", "at", "price", "tags", "attrs", "who", "raw",
            ];
            let raw = (json!("YWJj"), json!("abc"));
            let cells = [id, n, x, ok, day, at, price, tags, attrs, who, raw];
            for (index, (name, (json, expected))) in names.into_iter().zip(cells).enumerate() {
                match drop >> index & 1 {
                    0 => {
                        let key = if drop & 0x8000 != 0 {
                            name.to_uppercase()
                        } else {
                            name.to_owned()
                        };
                        model.json.insert(key, json);
                        model.expected.insert(name.to_owned(), expected);
                    }
                    _ => {
                        if drop & 0x4000 != 0 {
                            model.json.insert(name.to_owned(), Value::Null);
                        }
                        model.expected.insert(name.to_owned(), Value::Null);
                    }
                }
            }
            model
                .json
                .insert("nowhere".to_owned(), json!({"deep": [[["x"]]]}));
            model
        },
    )
}

/// Events that don't fit, each with a word of the reason.
fn misfit() -> impl Strategy<Value = (String, &'static str)> {
    prop::sample::select(vec![
        (r#"{"n":"12"}"#, "column n expects bigint"),
        (
            r#"{"id":"a","n":1,"who":{"age":1.5}}"#,
            "column who.age expects int",
        ),
        (r#"{"tags":["a",1]}"#, "column tags[1] expects string"),
        (
            r#"{"attrs":{"a":1,"b":true}}"#,
            "column attrs[\"b\"] expects bigint",
        ),
        (r#"{"price":1.2345}"#, "column price expects decimal(12,3)"),
        (r#"{"raw":"a"}"#, "column raw expects binary"),
        (r#"{"id":"\ud800"}"#, "hex escape"),
        (r#"{"id":"a""#, "can't be read as a row"),
        (r#"{"id":"a"} x"#, "can't be read as a row"),
        ("[]", "can't be read as a row"),
        ("", "can't be read as a row"),
        (
            r#"{"id":"a","id":1}"#,
            "column id expects string, got the number 1",
        ),
    ])
    .prop_map(|(json, reason)| (json.to_owned(), reason))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_goes_in_is_read_back_and_what_does_not_fit_is_named(
        events in prop::collection::vec(prop::result::maybe_err(model(), misfit()), 1..30)
    ) {
        let payloads: Vec<Option<String>> = events
            .iter()
            .map(|event| Some(match event {
                Ok(model) => Value::Object(model.json.clone()).to_string(),
                Err((json, _)) => json.clone(),
            }))
            .collect();
        let decoded = layout(SCHEMA, "").decode(batch(&payloads).events()).unwrap();

        let bad: Vec<usize> = (0..events.len()).filter(|i| events[*i].is_err()).collect();
        prop_assert_eq!(decoded.rejected.iter().map(|r| r.index).collect::<Vec<_>>(), bad, "{:?}", decoded.rejected);
        for rejected in &decoded.rejected {
            let (_, reason) = events[rejected.index].as_ref().unwrap_err();
            prop_assert!(rejected.reason.contains(reason), "{} lacks {}", rejected.reason, reason);
        }

        let expected: Vec<&Map<String, Value>> =
            events.iter().filter_map(|event| event.as_ref().ok()).map(|model| &model.expected).collect();
        if expected.is_empty() {
            prop_assert!(decoded.groups.is_empty());
            return Ok(());
        }
        prop_assert_eq!(decoded.groups.len(), 1);
        let rows = through_parquet(&decoded.groups[0].rows);
        prop_assert_eq!(rows.num_rows(), expected.len());
        for (at, expected) in expected.into_iter().enumerate() {
            prop_assert_eq!(&row(&rows, at), expected);
        }
    }

    #[test]
    fn the_fast_and_the_exact_path_agree(model in model()) {
        let layout = layout(SCHEMA, "");
        let payload = Value::Object(model.json).to_string();
        let mut exactly = Table::new(&layout, 0);
        exactly.push_exact(payload.as_bytes()).unwrap();
        exactly.place().unwrap();
        exactly.rows = 1;
        let mut fast = Table::new(&layout, 0);
        fast.push(Some(payload.as_bytes())).unwrap();
        let (exactly, fast) = (exactly.finish().unwrap(), fast.finish().unwrap());
        prop_assert_eq!(&exactly[0].rows, &fast[0].rows);
    }
}

#[test]
fn rows_are_parted_in_their_order() {
    let layout = layout("id string, ts timestamp", "dt={ts:%Y-%m-%d},c={c}");
    let decoded = decode(
        &layout,
        &[
            r#"{"id":"a","ts":"2026-11-23T23:59:59Z","c":1}"#,
            r#"{"id":"b","ts":"2026-11-24T00:00:00Z","c":1}"#,
            r#"{"id":"bad","ts":"x","c":1}"#,
            r#"{"id":"none","c":1}"#,
            r#"{"id":"c","ts":"2026-11-23T00:00:00Z","c":1}"#,
            r#"{"id":"d","ts":"2026-11-23T00:00:00Z"}"#,
        ],
    );
    let parted: Vec<(String, Vec<Value>)> = decoded
        .groups
        .iter()
        .map(|group| {
            let ids = (0..group.rows.num_rows()).map(|at| cell(group.rows.column(0).as_ref(), at));
            (group.partition.clone(), ids.collect())
        })
        .collect();
    assert_eq!(
        parted,
        [
            ("dt=2026-11-23/c=1".to_owned(), vec![json!("a"), json!("c")]),
            ("dt=2026-11-24/c=1".to_owned(), vec![json!("b")]),
            (
                "dt=2026-11-23/c=__HIVE_DEFAULT_PARTITION__".to_owned(),
                vec![json!("d")]
            ),
        ]
    );
    let reasons: Vec<&str> = decoded.rejected.iter().map(|r| r.reason.as_str()).collect();
    assert!(
        reasons[0].starts_with("column ts expects timestamp, got the string \"x\""),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains("the event has no field ts"),
        "{reasons:?}"
    );
}

#[test]
fn a_tombstone_and_an_odd_payload_are_rejected() {
    let layout = layout("id string", "");
    let deep = format!(
        "{{\"other\":{}{},\"id\":\"kept\"}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let payloads = [
        None,
        Some("{}".to_owned()),
        Some(deep),
        Some("7".to_owned()),
    ];
    let decoded = layout.decode(batch(&payloads).events()).unwrap();
    assert_eq!(decoded.rejected.len(), 2);
    assert!(decoded.rejected[0].reason.contains("tombstone"));
    assert_eq!(
        cell(decoded.groups[0].rows.column(0).as_ref(), 0),
        Value::Null
    );
    assert_eq!(
        cell(decoded.groups[0].rows.column(0).as_ref(), 1),
        json!("kept")
    );
}

#[test]
fn the_exact_name_wins_over_one_in_another_case_and_the_last_of_two_counts() {
    let layout = layout("id string, Name string", "");
    let decoded = decode(
        &layout,
        &[
            r#"{"ID":"by case","name":"x"}"#,
            r#"{"id":"exact","ID":"by case"}"#,
            r#"{"ID":"by case","id":"exact"}"#,
            r#"{"id":"first","id":"last"}"#,
        ],
    );
    assert_eq!(decoded.rejected, []);
    let ids: Vec<Value> = (0..4)
        .map(|at| cell(decoded.groups[0].rows.column(0).as_ref(), at))
        .collect();
    assert_eq!(
        ids,
        [
            json!("by case"),
            json!("exact"),
            json!("exact"),
            json!("last")
        ]
    );
    assert_eq!(
        cell(decoded.groups[0].rows.column(1).as_ref(), 0),
        json!("x")
    );
}

#[test]
fn a_field_fills_the_column_and_the_partition_where_it_is_exactly_the_name_of_one_only() {
    // The columns of a Hive table are lower-case.
    let of_partition = layout("eventtime string, id string", "dt={eventTime:%Y-%m-%d}");
    let of_column = layout("country string, id string", "c={Country}");
    let event = r#"{"eventTime":"2026-11-23T11:05:06Z","country":"AT","id":"a"}"#;
    // The second is read by the exact path: it has a field twice.
    let twice = r#"{"id":"b","id":"a","country":"AT","eventTime":"2026-11-23T11:05:06Z"}"#;
    for (layout, filled, partition) in [
        (of_partition, "2026-11-23T11:05:06Z", "dt=2026-11-23"),
        (of_column, "AT", "c=AT"),
    ] {
        let decoded = decode(&layout, &[event, twice]);
        assert_eq!(decoded.rejected, []);
        let [group] = &decoded.groups[..] else {
            panic!("{decoded:?}");
        };
        assert_eq!(group.partition, partition);
        for at in 0..2 {
            assert_eq!(cell(group.rows.column(0).as_ref(), at), json!(filled));
            assert_eq!(cell(group.rows.column(1).as_ref(), at), json!("a"));
        }
    }
}

#[test]
fn each_use_of_a_field_prefers_its_exact_name() {
    let layout = layout("country string", "c={Country}");
    for event in [
        r#"{"country":"column","Country":"partition","COUNTRY":"neither"}"#,
        r#"{"COUNTRY":"neither","Country":"partition","country":"column"}"#,
    ] {
        let decoded = decode(&layout, &[event]);
        assert_eq!(decoded.rejected, []);
        assert_eq!(decoded.groups[0].partition, "c=partition");
        let found = cell(decoded.groups[0].rows.column(0).as_ref(), 0);
        assert_eq!(found, json!("column"));
    }
}

#[test]
fn a_name_that_is_serde_jsons_own_makes_no_number_of_an_object() {
    let columns = "id string, price decimal(5,2), tags array<int>, n bigint, words array<string>";
    let layout = layout(columns, "");
    let decoded = decode(
        &layout,
        &[
            r#"{"id":"a","price":12.5}"#,
            r#"{"id":"b","price":{"$serde_json::private::Number":"12.5"}}"#,
            r#"{"id":"c","tags":[{"\u0024serde_json::private::Number":"12"}]}"#,
            r#"{"id":"d","price":{"$other":"12.5"}}"#,
            r#"{"id":"$serde_json::private::Number"}"#,
            // It needs a second look for another reason.
            r#"{"n":1.0,"id":"got {\"$serde_json::private::Number\": \"1\"}"}"#,
            r#"{"words":["$serde_json::private::Number"]}"#,
        ],
    );
    let rejected: Vec<(usize, bool)> = decoded
        .rejected
        .iter()
        .map(|event| {
            (
                event.index,
                event.reason.contains("`$serde_json::private::…`"),
            )
        })
        .collect();
    assert_eq!(rejected, [(1, true), (2, true), (3, false)]);
    assert_eq!(decoded.groups[0].rows.num_rows(), 4);
}
