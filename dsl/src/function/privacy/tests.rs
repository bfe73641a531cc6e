use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::tests::{ask, fails, refused, refuses, yields};
use crate::{Expression, Program, Record, Secrets, Settings};

/// FIPS 180-4's examples, and the empty text.
#[test]
fn sha256_of_known_texts() {
    for (text, hash) in [
        (
            "",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            "abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ] {
        yields("sha256(@)", &format!("{text:?}"), &format!("{hash:?}"));
    }
    // The text counts, not how it is written.
    yields(
        "sha256(a) == sha256(b)",
        r#"{"a": "\u0061é", "b": "a\u00e9"}"#,
        "true",
    );
}

/// RFC 4231, the test cases whose data is text.
#[test]
fn hmac_sha256_of_rfc_4231() {
    for (key, text, mac) in [
        (
            vec![0x0b; 20],
            "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            "what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 131],
            "Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            "This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ] {
        let mut secrets = Secrets::default();
        secrets.insert("key", key);
        let settings = Settings {
            secrets,
            ..Settings::default()
        };
        let expression = Expression::compile_with("hmac_sha256(@, 'key')", settings).unwrap();
        // Twice: a call leaves nothing behind.
        for _ in 0..2 {
            let (event, mut out) = (format!("{text:?}"), Vec::new());
            expression
                .search(&Record::of(event.as_bytes()), &mut out)
                .unwrap();
            assert_eq!(out, format!("{mac:?}").into_bytes());
        }
    }
}

#[test]
fn a_secret_is_looked_up_when_it_is_compiled_and_never_shown() {
    refuses(
        "hmac_sha256(a, 'user')",
        16,
        "argument 2: there is no secret 'user', only users; a route sets it as dsl.secret.user",
    );
    let none = Expression::compile("hmac_sha256(a, 'user')").unwrap_err();
    assert!(
        none.message
            .ends_with("there is no secret 'user'; a route sets it as dsl.secret.user"),
        "{none}"
    );
    assert!(
        refused("hmac_sha256(a, b)")
            .message
            .contains("so that it can be looked up")
    );

    let mut secrets = Secrets::default();
    secrets.insert("users", "hunter2");
    let settings = Settings {
        secrets,
        ..Settings::default()
    };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let program = Program::compile(None, Some("hmac_sha256(a, 'users')"), settings).unwrap();
    let shown = format!("{program:?}");
    assert!(shown.contains("Key(***)"), "{shown}");
    let bytes = format!("{:?}", b"hunter2");
    assert!(
        !shown.contains("hunter2") && !shown.contains(&bytes),
        "{shown}"
    );
}

#[test]
fn parts_of_a_text_are_hidden() {
    let event = r#"{"card": "4111111111111111", "name": "José", "e": ""}"#;
    yields(
        "[mask(card), mask(card, `4`)]",
        event,
        r#"["****************","************1111"]"#,
    );
    yields(
        "[mask(name, `2`), mask(name, `0`), mask(e)]",
        event,
        r#"["**sé","****",""]"#,
    );
    // A text no longer than what should stay would not be hidden at all.
    yields(
        "[mask(name, `4`), mask(name, `9223372036854775807`)]",
        event,
        r#"["****","****"]"#,
    );
    yields(
        "[truncate(name, `3`), truncate(name, `99`), truncate(name, `0`)]",
        event,
        r#"["Jos","José",""]"#,
    );
}

#[test]
fn prefixes_of_addresses() {
    for (address, expected) in [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("::1", "::/48"),
    ] {
        yields(
            "ip_prefix(@)",
            &format!("{address:?}"),
            &format!("{expected:?}"),
        );
    }
    let event = r#"{"v4": "203.0.113.77", "v6": "2001:db8::ff", "n": 33}"#;
    yields(
        "[ip_prefix(v4, `32`), ip_prefix(v4, `0`), ip_prefix(v4, `9`)]",
        event,
        r#"["203.0.113.77/32","0.0.0.0/0","203.0.0.0/9"]"#,
    );
    yields(
        "[ip_prefix(v6, `24`, `128`), ip_prefix(v6, `24`, `0`), ip_prefix(v6, `24`, `121`)]",
        event,
        r#"["2001:db8::ff/128","::/0","2001:db8::80/121"]"#,
    );
    refuses(
        "ip_prefix(a, `33`)",
        14,
        "argument 2: an address of this kind has 32 bits",
    );
    refuses(
        "ip_prefix(a, `24`, `129`)",
        20,
        "argument 3: an address of this kind has 128 bits",
    );
    fails(
        "ip_prefix(v4, n)",
        event,
        "ip_prefix: argument 2: an address of this kind has 32 bits",
    );
}

#[test]
fn what_is_no_address_is_not_told() {
    for text in [
        "",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.1/24",
        "fe80::1%eth0",
        "localhost",
    ] {
        fails(
            "ip_prefix(@)",
            &format!("{text:?}"),
            "ip_prefix: argument 1 is a string that is no IP address",
        );
    }
}

proptest! {
    /// All addresses that share the bits have one prefix; it is an address with these bits; and it is its own prefix.
    #[test]
    fn a_prefix_depends_on_its_bits_alone(a: u32, b: u32, c: u128, d: u128, v4 in 1_u32..=32, v6 in 1_u32..=128) {
        let prefix = |address: String| ask(&format!("ip_prefix(@, `{v4}`, `{v6}`)"), &format!("{address:?}")).unwrap();
        let b = (a >> (32 - v4) << (32 - v4)) | (b.checked_shr(v4).unwrap_or(0));
        let d = (c >> (128 - v6) << (128 - v6)) | (d.checked_shr(v6).unwrap_or(0));
        // An IPv4 address in IPv6 is another kind.
        prop_assume!(Ipv6Addr::from(c).to_ipv4_mapped().is_none() && Ipv6Addr::from(d).to_ipv4_mapped().is_none());
        for (one, other, own) in [
            (Ipv4Addr::from(a).to_string(), Ipv4Addr::from(b).to_string(), v4),
            (Ipv6Addr::from(c).to_string(), Ipv6Addr::from(d).to_string(), v6),
        ] {
            let found = prefix(one);
            prop_assert_eq!(&prefix(other), &found);
            let (network, bits) = found.trim_matches('"').split_once('/').unwrap();
            prop_assert_eq!(bits, own.to_string());
            prop_assert_eq!(prefix(network.to_owned()), found);
        }
    }
}
