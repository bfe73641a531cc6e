use serde_json::json;

use super::super::schema::parse_type;
use super::*;

fn fits(kind: &str, json: &str) -> Result<(), String> {
    let mut column = Buffers::new(&parse_type(kind).unwrap(), 1);
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
            r#"{"1":"a"} {"0":"a","-7":"b"} {"-2147483648":null}"#,
            r#"{"one":"a"} {"2147483648":"a"} {"007":"a"} {"7":"a","07":"b"} {"+5":"a"} {"-0":"a"} {"1.0":"a"} {"":"a"}"#,
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
            "column c expects bigint, got the number 1.5: it has a fraction: floor or ceil in the projection takes it away, a double or decimal column keeps it",
        ),
        (
            "tinyint",
            "300",
            "column c expects tinyint, got the number 300: it is not between -128 and 127; a greater type, a decimal or a string may hold it",
        ),
        (
            "float",
            "-1e39",
            "column c expects float, got the number -1e+39: a float holds up to 3.4e38, a double more",
        ),
        (
            "double",
            r#""NaN""#,
            r#"column c expects double, got the string "NaN": to_number in the projection converts it; NaN and Infinity become null"#,
        ),
        (
            "decimal(5,2)",
            "1e3",
            "column c expects decimal(5,2), got the number 1e+3: it has more than 3 digits before the point; a greater decimal holds it",
        ),
        (
            "decimal(5,2)",
            "0.001",
            "column c expects decimal(5,2), got the number 0.001: it has more than 2 digits after the point; a decimal of a greater scale holds it",
        ),
        (
            "array<struct<a:int>>",
            r#"[{"a":1},{"a":true}]"#,
            "column c[1].a expects int, got the boolean true",
        ),
        (
            "map<int,string>",
            r#"{"007":"a"}"#,
            r#"column c key "007" expects int, got the string "007": a key is a whole number of at most 64 bits in its shortest form: 7, not 007 or +7"#,
        ),
        (
            "map<string,array<date>>",
            r#"{"k":["x"]}"#,
            r#"column c["k"][0] expects date, got the string "x": a date is written YYYY-MM-DD"#,
        ),
    ] {
        assert_eq!(fits(kind, json).unwrap_err(), text);
    }
    for (kind, json, words) in [
        (
            "bigint",
            "1e99999999999999999999",
            "it is not between -9223372036854775808 and 9223372036854775807",
        ),
        ("bigint", "1e-99999999999999999999", "it has a fraction"),
        ("double", "1e309", "a double holds up to 1.7e308"),
        (
            "timestamp",
            "1e300",
            "it is beyond any time; allowed is an RFC 3339 time",
        ),
        (
            "timestamp",
            r#""soon""#,
            "it is not written as a time; allowed is an RFC 3339 time",
        ),
        (
            "timestamp",
            r#""2026-11-23T11:05:61Z""#,
            "it is not written as a time",
        ),
    ] {
        let reason = fits(kind, json).unwrap_err();
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(fits("bigint", "0e99999999999999999999"), Ok(()));
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
