use serde_json::json;

use super::super::schema::parse_type;
use super::*;

fn fits(kind: &str, json: &str) -> Result<(), String> {
    let mut column = Buffers::new(&parse_type(kind).unwrap());
    let value: Value = serde_json::from_str(json).unwrap();
    push(&mut column, &value).map_err(|error| error.below("c").to_string())
}

#[test]
fn what_fits_and_what_does_not() {
    let table = [
        ("string", r#""a""#, "12 true [] {}"),
        (
            "bigint",
            "0 -0 12 12.0 1.2e1 120e-1 9223372036854775807 -9223372036854775808 1e18",
            r#""12" 1.5 9223372036854775808 -9223372036854775809 9007199254740993.5 1e19 1e99999999999 true"#,
        ),
        (
            "int",
            "2147483647 -2147483648",
            "2147483648 -2147483649 1e10",
        ),
        ("smallint", "32767 -32768", "32768"),
        ("tinyint", "127 -128", "128 -129"),
        ("boolean", "true false", r#"0 1 "true""#),
        (
            "double",
            "0 1.5 1e308 12345678901234567890 -0.0",
            r#"1e309 "1.5" true"#,
        ),
        ("float", "0 1.5 1e38", "1e39"),
        (
            "decimal(5,2)",
            r#"0 1.5 999.99 -999.99 1.50000 "12.30" 1e2 99900e-2 "-0.01""#,
            r#"1000 1.555 "x" "" "1." ".5" "+1" 1e3 true "NaN""#,
        ),
        (
            "decimal(38,0)",
            "99999999999999999999999999999999999999",
            "100000000000000000000000000000000000000",
        ),
        (
            "date",
            r#""2026-11-23" "1969-12-31""#,
            r#""2026-1-3" "2026-02-30" "2026-11-23T00:00:00Z" 20000"#,
        ),
        (
            "timestamp",
            r#""2026-11-23T11:05:06.123456789Z" "2026-11-23" 1795431906 1795431906123 1795431906.5"#,
            r#""yesterday" true"#,
        ),
        ("varchar(3)", r#""abc" "åäö""#, r#""abcd""#),
        (
            "binary",
            r#""" "YQ==" "YWI=" "YWJj""#,
            r#""YQ" "YQ=" "Y===" "YR==" "Y*==" "YQ==YWJj""#,
        ),
        ("array<int>", "[] [1,null]", r#"1 {} ["1"]"#),
        (
            "map<string,int>",
            r#"{} {"a":1,"b":null}"#,
            r#"[] {"a":"1"}"#,
        ),
        (
            "map<int,string>",
            r#"{"1":"a"}"#,
            r#"{"one":"a"} {"2147483648":"a"}"#,
        ),
        (
            "struct<a:int,b:string>",
            r#"{} {"a":1,"c":2}"#,
            r#"[] {"a":"1"}"#,
        ),
    ];
    for (kind, good, bad) in table {
        assert_eq!(fits(kind, "null"), Ok(()), "{kind}");
        for json in good.split(' ') {
            assert_eq!(fits(kind, json), Ok(()), "{kind} takes {json}");
        }
        for json in bad.split(' ') {
            assert!(fits(kind, json).is_err(), "{kind} refuses {json}");
        }
    }
}

#[test]
fn a_mismatch_names_the_place_the_value_and_the_type() {
    for (kind, json, text) in [
        (
            "bigint",
            r#""12""#,
            r#"column c expects bigint, got the string "12""#,
        ),
        (
            "bigint",
            "1.5",
            "column c expects bigint, got the number 1.5: it has a fraction",
        ),
        (
            "tinyint",
            "300",
            "column c expects tinyint, got the number 300: it is out of range",
        ),
        (
            "array<struct<a:int>>",
            r#"[{"a":1},{"a":true}]"#,
            "column c[1].a expects int, got the boolean true",
        ),
        (
            "map<string,array<date>>",
            r#"{"k":["x"]}"#,
            r#"column c["k"][0] expects date, got the string "x": a date is written YYYY-MM-DD"#,
        ),
    ] {
        assert_eq!(fits(kind, json).unwrap_err(), text);
    }
    let long = fits("int", &format!("\"{}\"", "x".repeat(5000))).unwrap_err();
    assert!(long.len() < 200, "{long}");
}

#[test]
fn a_field_that_differs_in_case_is_found_after_the_exact_one() {
    let object = json!({"Ab": 1, "AB": 2});
    let Value::Object(object) = object else {
        panic!()
    };
    assert_eq!(find(&object, "Ab"), Some(&json!(1)));
    assert_eq!(find(&object, "ab"), Some(&json!(2)));
    assert_eq!(find(&object, "b"), None);
}
