use proptest::prelude::*;

use super::*;

fn refused(kind: Kind, value: &str) -> String {
    check(&kind, value).expect_err(value)
}

#[test]
fn text_and_every_other_kind_refuse_the_empty_value() {
    for kind in [
        Kind::Text,
        Kind::List,
        Kind::Bool,
        Kind::Count { min: 0, max: 9 },
        Kind::Choice(&["a"]),
    ] {
        assert_eq!(refused(kind, ""), "the value is empty");
    }
    assert_eq!(check(&Kind::Text, "x"), Ok(()));
}

#[test]
fn a_list_drops_white_space_and_refuses_an_empty_item() {
    assert_eq!(list(" a ,b,\tc d "), ["a", "b", "c d"]);
    assert_eq!(check(&Kind::List, "a, b"), Ok(()));
    assert_eq!(refused(Kind::List, "a,,b"), "`a,,b` has an empty item");
    assert_eq!(refused(Kind::List, "a,"), "`a,` has an empty item");
}

#[test]
fn a_bool_is_two_words() {
    assert_eq!(check(&Kind::Bool, "true"), Ok(()));
    assert_eq!(check(&Kind::Bool, "false"), Ok(()));
    for value in ["True", "yes", "1", "on"] {
        refused(Kind::Bool, value);
    }
}

#[test]
fn a_count_is_digits_within_its_range() {
    let kind = Kind::Count { min: 2, max: 10 };
    assert_eq!(check(&kind, "2"), Ok(()));
    assert_eq!(check(&kind, "10"), Ok(()));
    assert_eq!(refused(kind, "1"), "`1` is too small");
    assert_eq!(refused(kind, "11"), "`11` is too large");
    assert_eq!(
        refused(kind, "99999999999999999999999"),
        "`99999999999999999999999` is too large"
    );
    for value in ["+3", "-3", "3.0", "3 ", "1_0", "0x3", "٣", "three"] {
        assert!(
            refused(kind, value).ends_with("is not a whole number"),
            "{value}"
        );
    }
    // Nothing larger exists, but what does not fit is still refused.
    let unbounded = Kind::Count {
        min: 0,
        max: u64::MAX,
    };
    assert_eq!(check(&unbounded, "18446744073709551615"), Ok(()));
    refused(unbounded, "18446744073709551616");
}

#[test]
fn bytes_take_units_of_1024() {
    let cases = [
        ("0", 0),
        ("17", 17),
        ("1k", 1024),
        ("1kb", 1024),
        ("2M", 2 << 20),
        ("2mb", 2 << 20),
        ("3g", 3 << 30),
        ("3GB", 3 << 30),
    ];
    for (text, number) in cases {
        assert_eq!(bytes(text), Some(number), "{text}");
    }
    for text in ["", "k", "1 k", "1kk", "1t", "1b", "-1k", "1.5m", "1kib"] {
        assert_eq!(bytes(text), None, "{text}");
    }
    let kind = Kind::Bytes {
        min: 0,
        max: 1 << 20,
    };
    assert_eq!(check(&kind, "1m"), Ok(()));
    assert_eq!(refused(kind, "1025k"), "`1025k` is too large");
    assert!(refused(kind, "99999999999999g").ends_with("is too large"));
    assert!(refused(kind, "1 MB").ends_with("is not a number of bytes"));
}

#[test]
fn millis_are_digits() {
    let kind = Kind::Millis {
        min: 1,
        max: 60_000,
    };
    assert_eq!(check(&kind, "500"), Ok(()));
    assert!(refused(kind, "5s").ends_with("is not a number of milliseconds"));
    assert_eq!(refused(kind, "0"), "`0` is too small");
}

#[test]
fn a_choice_is_one_of_its_words_and_the_nearest_is_named() {
    let kind = Kind::Choice(&["earliest", "latest"]);
    assert_eq!(check(&kind, "latest"), Ok(()));
    assert_eq!(
        refused(kind, "earlist"),
        "`earlist` is not known; did you mean `earliest`?"
    );
    assert_eq!(refused(kind, "whenever"), "`whenever` is not known");
}

#[test]
fn what_is_allowed_in_words() {
    let cases = [
        (Kind::Choice(&["a", "b"]), "`a`, `b`"),
        (
            Kind::Count {
                min: 1,
                max: u64::MAX,
            },
            "a whole number of 1 or more",
        ),
        (
            Kind::Bytes {
                min: 1024,
                max: 5 << 20,
            },
            "a number of bytes from 1k to 5m, as digits or with `k`, `m` or `g`",
        ),
        (
            Kind::Millis {
                min: 10,
                max: 60_000,
            },
            "a number of milliseconds from 10 to 60000",
        ),
    ];
    for (kind, words) in cases {
        assert_eq!(allowed(&kind), words);
    }
}

#[test]
fn an_echoed_value_is_short_and_harmless() {
    assert_eq!(quoted("a\x1b[31m\n'b'"), "`a\\u{1b}[31m\\n'b'`");
    assert_eq!(quoted(&"x".repeat(200)).chars().count(), 83);
    assert_eq!(quoted("http://me:pw@host/x"), "`http://***@host/x`");
}

proptest! {
    #[test]
    fn any_value_is_checked_without_a_panic(value in any::<String>()) {
        for kind in [Kind::Text, Kind::List, Kind::Bool, Kind::Count { min: 1, max: 5 }, Kind::Bytes { min: 1, max: 5 }, Kind::Choice(&["a"])] {
            let _ = check(&kind, &value);
        }
    }

    #[test]
    fn bytes_are_the_number_times_the_unit(number in 0u128..1 << 30, unit in 0usize..7) {
        let (suffix, factor) = [("", 1), ("k", 1 << 10), ("kb", 1 << 10), ("m", 1 << 20), ("mb", 1 << 20), ("g", 1u128 << 30), ("gb", 1 << 30)][unit];
        prop_assert_eq!(bytes(&format!("{number}{suffix}")), Some(number * factor));
    }
}
