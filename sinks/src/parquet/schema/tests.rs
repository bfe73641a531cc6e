use proptest::prelude::*;

use super::*;

fn kind() -> impl Strategy<Value = HiveType> {
    let leaf = prop_oneof![
        Just(HiveType::String),
        (1_u32..=65_535).prop_map(HiveType::Varchar),
        (1_u32..=255).prop_map(HiveType::Char),
        Just(HiveType::Binary),
        Just(HiveType::Boolean),
        Just(HiveType::TinyInt),
        Just(HiveType::SmallInt),
        Just(HiveType::Int),
        Just(HiveType::BigInt),
        Just(HiveType::Float),
        Just(HiveType::Double),
        (1_u8..=38)
            .prop_flat_map(|precision| (Just(precision), 0..=precision))
            .prop_map(|(precision, scale)| HiveType::Decimal { precision, scale }),
        Just(HiveType::Timestamp),
        Just(HiveType::Date),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|item| HiveType::Array(Box::new(item))),
            inner
                .clone()
                .prop_map(|value| HiveType::Map(Box::new(HiveType::String), Box::new(value))),
            prop::collection::vec(inner, 1..4).prop_map(|kinds| HiveType::Struct(named(kinds))),
        ]
    })
}

fn named(kinds: Vec<HiveType>) -> Vec<Column> {
    let names = ["a", "Mixed_1", "with space", "ünicode"];
    kinds
        .into_iter()
        .zip(names)
        .map(|(kind, name)| Column {
            name: name.to_owned(),
            kind,
        })
        .collect()
}

proptest! {
    #[test]
    fn what_is_written_parses_to_the_same(kinds in prop::collection::vec(kind(), 1..4)) {
        let columns = named(kinds);
        let text = columns.iter().map(Column::to_string).collect::<Vec<_>>().join(", ");
        prop_assert_eq!(parse_columns(&text).unwrap(), columns.clone());
        let spaced = text.replace(',', " , ").replace('<', " < ").replace(':', " : ");
        prop_assert_eq!(parse_columns(&spaced).unwrap(), columns);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z<>(),:` 0-9]{0,40}") {
        let _ = parse_columns(&text);
        let _ = parse_type(&text);
    }
}

#[test]
fn words_are_case_insensitive_and_synonyms_are_taken() {
    let columns = parse_columns(
        "A STRING, b Double Precision, c dec(5,2), d NUMERIC, e integer, f Array< Struct<x:INT,`y z`:map<string,date>> >",
    )
    .unwrap();
    let words: Vec<String> = columns.iter().map(Column::to_string).collect();
    assert_eq!(
        words,
        [
            "A string",
            "b double",
            "c decimal(5,2)",
            "d decimal(10,0)",
            "e int",
            "f array<struct<x:int,`y z`:map<string,date>>>"
        ]
    );
}

#[test]
fn errors_name_the_place_and_what_is_allowed() {
    for (text, position, part) in [
        ("", 1, "expected a column name, but the text ends"),
        ("a", 2, "expected a type: string, varchar(n)"),
        ("a strin", 3, "unknown type `strin`; types are string"),
        ("a string b int", 10, "expected `,`, found `b`"),
        ("a string,", 10, "expected a column name"),
        ("a int, A int", 8, "the name `A` is taken already"),
        ("a array<int", 12, "expected `>`, but the text ends"),
        ("a map<double,int>", 7, "keys of a map are string"),
        ("a decimal(39,0)", 11, "expected a number from 0 to 38"),
        ("a decimal(5,6)", 11, "the scale 0 to the precision"),
        ("a varchar(0)", 11, "a length is 1 or more"),
        ("event-id string", 6, "expected a type"),
        ("a uniontype<int>", 3, "unknown type `uniontype`"),
    ] {
        let error = parse_columns(text).unwrap_err();
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!(error.position, position, "{text}: {error}");
    }
    let deep = format!("a {}int{}", "array<".repeat(100), ">".repeat(100));
    assert!(
        parse_columns(&deep)
            .unwrap_err()
            .message
            .contains("deeper than 32")
    );
}
