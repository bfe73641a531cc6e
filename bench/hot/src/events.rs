//! Events of 620 bytes, as a player of films might send them.

pub(crate) const FILTER: &str = "type == 'play' && duration_ms > `30000`";
/// Five fields, and the time that a table is partitioned by.
pub(crate) const PROJECTION: &str = "{event_id: id, user: user.id, title: content.title, country: geo.country, duration_ms: duration_ms, ts: ts}";
/// The columns of a table of these.
pub(crate) const COLUMNS: &str =
    "event_id string, user bigint, title string, country string, duration_ms bigint, ts string";

/// An event of which the filter keeps one in six.
pub(crate) fn any(number: u64) -> String {
    let kind = ["pause", "play", "seek"][(number % 3) as usize];
    let long = number % 2 * 40_000;
    event(number, kind, 10_000 + long + number % 20_000)
}

/// An event that the filter keeps.
pub(crate) fn kept(number: u64) -> String {
    event(number, "play", 30_001 + number % 30_000)
}

fn event(number: u64, kind: &str, duration_ms: u64) -> String {
    let (minute, second) = (number / 60 % 60, number % 60);
    let title = [
        "The Long Way Home",
        "Das Boot \\\"Director's Cut\\\"",
        "七人の侍",
        "Amélie",
    ][(number % 4) as usize];
    let user = 8_123_456_789_012_345_678 + number;
    let mut json = format!(
        r#"{{"id":"{:08x}-{number:012}","type":"{kind}","ts":"2026-11-23T10:{minute:02}:{second:02}.000Z","#,
        number.wrapping_mul(2_654_435_761) as u32
    );
    json += &format!(
        r#""user":{{"id":{user},"plan":"premium","age":37,"tags":["a","b3"]}},"content":{{"id":"c-0badcafe","title":"{title}","kind":"film","season":null,"rating":4.5}},"#
    );
    json += &format!(
        r#""geo":{{"country":"DE","city":"Köln","lat":50.25,"lon":-6.5}},"duration_ms":{duration_ms},"device":{{"os":"tvOS","version":"18.2","hdr":true,"model":"AppleTV14,1"}},"#
    );
    json += r#""net":{"kbps":12000,"isp":"AS3320"},"trace":""#;
    while json.len() < 618 {
        json.push(char::from(b'0' + (json.len() * 7 % 10) as u8));
    }
    json + "\"}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_620_bytes() {
        assert!((0..1_000).all(|number| any(number).len() == 620 && kept(number).len() == 620));
    }
}
