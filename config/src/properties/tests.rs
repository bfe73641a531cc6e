use proptest::prelude::*;

use super::{Flaw, Pair, escape_value};

fn parse(text: &str) -> (Vec<Pair>, Vec<Flaw>) {
    super::parse(text, |key| key == "password")
}

fn pairs(text: &str) -> Vec<(String, String, usize)> {
    let (pairs, flaws) = parse(text);
    assert_eq!(flaws, []);
    pairs
        .into_iter()
        .map(|pair| (pair.key, pair.value, pair.line))
        .collect()
}

fn pair(key: &str, value: &str, line: usize) -> (String, String, usize) {
    (key.into(), value.into(), line)
}

#[test]
fn separators_comments_and_empty_lines() {
    let text = "# one\n! two\n\na=1\nb: 2\nc 3\n  d  =  4\ne=\nf\n g=h=i # not a comment";
    let expected = [
        pair("a", "1", 4),
        pair("b", "2", 5),
        pair("c", "3", 6),
        pair("d", "4", 7),
        pair("e", "", 8),
        pair("f", "", 9),
        pair("g", "h=i # not a comment", 10),
    ];
    assert_eq!(pairs(text), expected);
}

#[test]
fn a_continued_value_has_the_line_of_its_key() {
    let text = "a=1,\\\n   2,\\\n   3\nb=4\n";
    assert_eq!(pairs(text), [pair("a", "1,2,3", 1), pair("b", "4", 4)]);
}

#[test]
fn a_comment_is_not_continued_but_a_value_goes_on_in_what_looks_like_one() {
    assert_eq!(
        pairs("# a\\\nb=1\nc=2\\\n#3\n"),
        [pair("b", "1", 2), pair("c", "2#3", 3)]
    );
}

#[test]
fn a_backslash_at_the_end_of_the_text_does_not_swallow_the_line() {
    assert_eq!(pairs("a=1\nb=2\\"), [pair("a", "1", 1), pair("b", "2", 2)]);
}

#[test]
fn every_line_ending_and_a_byte_order_mark() {
    assert_eq!(
        pairs("\u{feff}a=1\r\nb=2\rc=3\n"),
        [pair("a", "1", 1), pair("b", "2", 2), pair("c", "3", 3)]
    );
}

#[test]
fn escapes_and_utf_8() {
    let text = "a=x\\ny\\tz\\\\\nb=\\u00e9é\u{1f600}\nc\\ d\\=e=1\nd=^e\\\\.\n";
    let expected = [
        pair("a", "x\ny\tz\\", 1),
        pair("b", "éé\u{1f600}", 2),
        pair("c d=e", "1", 3),
        pair("d", "^e\\.", 4),
    ];
    assert_eq!(pairs(text), expected);
}

#[test]
fn what_may_be_escaped() {
    let text = "a=\\\\ \\\\d \\n \\t \\r \\f \\: \\= \\# \\! \\' \\\" \\u0041 \\\t\\ ";
    let expected = "\\ \\d \n \t \r \x0c : = # ! ' \" A \t ";
    assert_eq!(pairs(text), [pair("a", expected, 1)]);
}

#[test]
fn a_backslash_that_would_be_dropped_is_a_flaw_with_its_line() {
    let (pairs, flaws) = parse("a=1\nfilter=regex_match(a, '\\d+')\nb=2\n");
    assert_eq!(pairs.len(), 3);
    assert_eq!(flaws.len(), 1);
    assert_eq!((flaws[0].key.as_str(), flaws[0].line), ("filter", 2));
    assert_eq!(
        flaws[0].problem,
        r"a backslash would be dropped: `\d` would be read as `d`"
    );
    assert_eq!(
        flaws[0].hint,
        r"write a backslash that is part of the value twice: `\\d`"
    );
}

#[test]
fn a_dropped_backslash_is_found_wherever_it_stands() {
    let (_, flaws) =
        parse("# \\d\na=\\w\\.\\w, \\\n  \\\\d \\\n  #\\é\u{1b}\\\u{1b}\nb\\c \\n\\\\\n=\\q");
    let found: Vec<_> = flaws
        .iter()
        .map(|flaw| (flaw.key.as_str(), flaw.line, flaw.problem.as_str()))
        .collect();
    let dropped = "a backslash would be dropped: ";
    assert_eq!(
        found,
        [
            (
                "a",
                2,
                &*format!(r"{dropped}`\w` would be read as `w`, `\.` would be read as `.`")
            ),
            (
                "a",
                4,
                &*format!(
                    r"{dropped}`\é` would be read as `é`, `\\u{{1b}}` would be read as `\u{{1b}}`"
                )
            ),
            ("bc", 5, &*format!(r"{dropped}`\c` would be read as `c`")),
            ("", 6, &*format!(r"{dropped}`\q` would be read as `q`")),
            ("", 6, "there is no key before the separator"),
        ]
    );
}

#[test]
fn of_a_secret_a_flaw_tells_nothing() {
    let (_, flaws) = parse("password=ab\\Zc\n");
    assert_eq!(flaws.len(), 1);
    let told = format!("{}; {}", flaws[0].problem, flaws[0].hint);
    assert_eq!(
        told,
        r"a backslash stands before a character that needs none, and would be dropped; write a backslash that is part of the value twice, `\\`"
    );
}

#[test]
fn a_malformed_escape_is_a_flaw_with_its_line_and_the_rest_is_read() {
    for value in ["\\u12", "\\u12zz", "\\ud83d\\ude00", "\\u"] {
        let (pairs, flaws) = parse(&format!("a=1\nb={value}\nc=3\n"));
        assert_eq!(pairs.len(), 2, "{value}");
        assert_eq!(flaws.len(), 1, "{value}");
        assert_eq!(flaws[0].line, 2);
        assert!(flaws[0].problem.contains("malformed escape"));
    }
}

#[test]
fn a_malformed_escape_in_a_comment_is_no_flaw() {
    assert_eq!(pairs("  # C:\\users\r\na=1\n"), [pair("a", "1", 2)]);
}

#[test]
fn a_key_that_stands_twice_names_both_lines() {
    let (pairs, flaws) = parse("a=1\nb=2\na=3\n");
    assert_eq!(pairs.len(), 2);
    assert_eq!((flaws[0].key.as_str(), flaws[0].line), ("a", 3));
    assert_eq!(flaws[0].problem, "set twice: in line 1 and in line 3");
}

#[test]
fn a_line_without_a_key_is_a_flaw() {
    let (pairs, flaws) = parse("a=1\n=2\n");
    assert_eq!((pairs.len(), flaws.len(), flaws[0].line), (1, 1, 2));
}

/// Escapes whatever has a meaning in a key.
fn escape_key(key: &str) -> String {
    let mut out = String::new();
    for c in key.chars() {
        match c {
            '\n' | '\r' | '\t' | '\x0c' => out.push_str(&escape_value(&c.to_string())),
            ' ' | '=' | ':' | '#' | '!' | '\\' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>()) {
        parse(&text);
    }

    #[test]
    fn any_text_of_special_characters_is_read_without_a_panic(text in "[ab=: \\\\\\\\\\\\\r\n\t\x0c#!u0d8\u{e9}]{0,80}") {
        let lines = text.matches(['\r', '\n']).count() + 1;
        let (pairs, flaws) = parse(&text);
        for line in pairs.iter().map(|pair| pair.line).chain(flaws.iter().map(|flaw| flaw.line)) {
            prop_assert!((1..=lines).contains(&line));
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        written in prop::collection::btree_map("[a-z.=: #!\\\\\t\n\u{e9}\u{1f600}]{1,12}", any::<String>(), 0..8),
        ending in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let mut text = String::new();
        for (key, value) in &written {
            text.push_str(&format!("{}={}{ending}", escape_key(key), escape_value(value)));
        }
        let (pairs, flaws) = parse(&text);
        prop_assert_eq!(flaws, vec![]);
        let read: Vec<(String, String)> = pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        prop_assert_eq!(read, written.into_iter().collect::<Vec<_>>());
    }
}
