use std::io::Write;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;

fn file(content: &[u8]) -> (NamedTempFile, String) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let reference = format!("${{file:{}}}", file.path().display());
    (file, reference)
}

fn text(raw: &str) -> String {
    expand(raw).unwrap().text
}

#[test]
fn a_whole_value_or_a_part_of_it_comes_from_a_file() {
    let (_file, reference) = file(b"s3cret\n");
    let whole = expand(&reference).unwrap();
    assert_eq!(whole.text, "s3cret");
    assert!(whole.whole);
    let part = expand(&format!("user:{reference}@{reference}!")).unwrap();
    assert_eq!(part.text, "user:s3cret@s3cret!");
    assert_eq!(part.contents, ["s3cret", "s3cret"]);
    assert!(!part.whole);
    assert!(!expand(&format!("{reference}{reference}")).unwrap().whole);
    assert!(!expand(&format!("{reference}literal}}")).unwrap().whole);
}

#[test]
fn only_one_trailing_line_break_is_dropped_and_the_content_is_not_expanded_again() {
    for (content, expected) in [
        ("a\n", "a"),
        ("a\r\n", "a"),
        ("a\n\n", "a\n"),
        (" a ", " a "),
        ("${file:/x}", "${file:/x}"),
    ] {
        let (_file, reference) = file(content.as_bytes());
        assert_eq!(text(&reference), expected);
    }
}

#[test]
fn a_dollar_is_an_ordinary_character_unless_a_brace_follows() {
    for (raw, expected) in [
        ("$", "$"),
        ("a$b$$c", "a$b$$c"),
        ("$${x}", "${x}"),
        ("$$${", "$${"),
        ("é$", "é$"),
        ("{}", "{}"),
    ] {
        assert_eq!(text(raw), expected, "{raw}");
    }
}

#[test]
fn other_references_are_refused_without_an_echo() {
    for raw in [
        "${env:HOME}",
        "${x}",
        "${",
        "hunter2${",
        "${file:/x",
        "${FILE:/x}",
    ] {
        let Flaw {
            problem,
            hint,
            unread,
        } = expand(raw).err().expect(raw);
        assert!(!unread, "{raw}");
        assert!(
            !problem.contains("hunter2") && !problem.contains("HOME"),
            "{problem}"
        );
        assert!(hint.contains("`${file:/path/of/a/file}`"));
    }
}

#[test]
fn a_problem_names_the_file_and_the_reason_but_no_content() {
    let Flaw {
        problem, unread, ..
    } = expand("${file:/no/such/file}").err().unwrap();
    assert!(problem.contains("/no/such/file: No such file"), "{problem}");
    assert!(unread);
    for (content, reason) in [
        (&b"hunter2\xff"[..], "not UTF-8"),
        (b"\n", "empty"),
        (&[b'h'; (1 << 20) + 1], "larger than 1 MiB"),
    ] {
        let (file, reference) = file(content);
        let Flaw {
            problem, unread, ..
        } = expand(&reference).err().unwrap();
        assert!(!unread, "it was read, and is wrong: {problem}");
        assert!(
            problem.contains(reason) && problem.contains(&file.path().display().to_string()),
            "{problem}"
        );
        assert!(
            !problem.contains("hh") && !problem.contains("hunter"),
            "{problem}"
        );
    }
}

proptest! {
    #[test]
    fn any_value_expands_or_is_refused_without_a_panic(raw in "[$\\{\\}a:file/é]{0,24}|\\PC*") {
        let _ = expand(&raw);
    }

    #[test]
    fn escaping_keeps_any_text(plain in "[${}a]{0,24}|\\PC*") {
        prop_assert_eq!(text(&plain.replace("${", "$${")), plain);
    }
}
