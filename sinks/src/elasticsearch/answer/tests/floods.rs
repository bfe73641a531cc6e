//! Wrong and forbidden indices: one odd event, or everybody's trouble.

use proptest::prelude::*;
use serde_json::json;

use super::super::super::flood::FLOOD;
use super::*;

/// What becomes of events with these values of `f`, with an answer of this status to each.
fn each(
    name: &str,
    values: &[String],
    status: impl Fn(usize) -> u16,
) -> Result<Outcome, Unsettled> {
    each_after(&mut Flood::default(), name, values, status)
}

fn each_after(
    flood: &mut Flood,
    name: &str,
    values: &[String],
    status: impl Fn(usize) -> u16,
) -> Result<Outcome, Unsettled> {
    let plan = plan(name, "auto", Op::Create);
    let events: Vec<String> = values
        .iter()
        .map(|value| json!({"f": value, "t": "2026-11-23"}).to_string())
        .collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let batch = texts(&events);
    let request = encode(&batch, &plan);
    let items: Vec<Value> = (0..values.len())
        .map(|at| {
            let status = status(at);
            let error = match status {
                404 => Some(("index_not_found_exception", "no such index")),
                _ => (status > 201).then_some(("security_exception", "is unauthorized")),
            };
            item("create", "made", status, error)
        })
        .collect();
    let body = json!({"items": items}).to_string();
    settle_after(flood, body.as_bytes(), &request, &plan, &batch)
}

fn values(count: usize, different: usize) -> Vec<String> {
    (0..count)
        .map(|at| format!("x{}", at % different))
        .collect()
}

#[test]
fn a_forbidden_index_is_the_events_fault_only_where_a_field_names_it() {
    let one = values(1, 1);
    let by_field = each("e-{f}", &one, |_| 403).unwrap();
    assert_eq!(
        by_field.answer.rejected[0].reason,
        "elasticsearch answered 403 security_exception: is unauthorized (index e-x0)"
    );
    assert!(by_field.answer.retry.is_empty());
    let fixed = each("e", &one, |_| 403);
    assert!(
        matches!(&fixed, Err(Unsettled::Fatal(text)) if text.ends_with(PRIVILEGES)),
        "{fixed:?}"
    );
}

#[test]
fn a_flood_of_forbidden_events_stops_the_worker_instead() {
    let flood = each("e-{f}", &values(FLOOD, 2), |_| 403);
    let Err(Unsettled::Fatal(text)) = flood else {
        panic!("{flood:?}")
    };
    assert_eq!(
        text,
        format!(
            "100 events in a row were refused, the last with elasticsearch answered 403 security_exception: \
             is unauthorized (index e-x1); {PRIVILEGES}"
        )
    );
}

#[test]
fn forbidden_events_in_a_row_are_a_flood_over_several_requests() {
    let mut flood = Flood::default();
    let mut request = |index: usize, status: u16| {
        let values = vec![format!("x{index}"); 3];
        each_after(&mut flood, "e-{f}", &values, |_| status)
    };
    // One index may be an odd one, and any event that is taken shows that not all are forbidden.
    for _ in 0..FLOOD {
        assert!(request(0, 403).is_ok());
    }
    assert!(request(9, 201).is_ok());
    for at in 0..FLOOD / 3 {
        assert!(request(at % 2, 403).is_ok(), "{at}");
    }
    assert!(matches!(request(0, 403), Err(Unsettled::Fatal(_))));
}

/// A bad clock makes an index that nobody has provided for; a wrong configuration makes none but those.
#[test]
fn an_index_named_by_a_time_is_the_events_fault_where_others_are_taken() {
    let plan = plan("e-{t:%Y}", "auto", Op::Create);
    let batch = texts(&[r#"{"t":"1970-01-01"}"#, r#"{"t":"2026-11-23"}"#]);
    let request = encode(&batch, &plan);
    let streams = "only write ops with an op_type of create are allowed in data streams";
    for (status, error) in [
        (404, ("index_not_found_exception", "no such index")),
        (403, ("security_exception", "is unauthorized")),
        (400, ("illegal_argument_exception", streams)),
    ] {
        let refused = || item("create", "made", status, Some(error));
        let settled = |other: Value| {
            let body = json!({"items": [refused(), other]}).to_string();
            settle(body.as_bytes(), &request, &plan, &batch)
        };
        let outcome = settled(item("create", "made", 201, None)).unwrap();
        let rejected: Vec<usize> = outcome.answer.rejected.iter().map(|r| r.index).collect();
        assert_eq!(rejected, [0], "{error:?}");
        let all = settled(refused());
        assert!(matches!(all, Err(Unsettled::Fatal(_))), "{all:?}");
    }
}

#[test]
fn a_wrong_index_is_everybodys_where_it_is_not_rare() {
    let values = values(2 * FLOOD, 1);
    let missing_up_to = |end: usize| move |at: usize| if at < end { 404 } else { 201 };
    let (name, one) = ("e-{t:%Y}", &values[..1]);
    let each = |flood: &mut Flood, values: &[String], status: &dyn Fn(usize) -> u16| {
        let values: Vec<String> = values.to_vec();
        each_after(flood, name, &values, status)
    };
    let fresh = Flood::default;
    let rejected = |outcome: Result<Outcome, Unsettled>| outcome.unwrap().answer.rejected.len();
    let is_fatal = |outcome| matches!(outcome, Err(Unsettled::Fatal(text)) if text.ends_with("sink.elasticsearch.index"));

    let half = each(&mut fresh(), &values, &missing_up_to(FLOOD));
    assert_eq!(rejected(half), FLOOD);
    assert!(is_fatal(each(
        &mut fresh(),
        &values,
        &missing_up_to(2 * FLOOD - 1)
    )));
    // An event that is refused for itself shows nothing of the index.
    assert!(is_fatal(
        each(&mut fresh(), &values[..2], &|at| [404, 400][at])
    ));

    // Alone in its request, after others were taken.
    let mut flood = fresh();
    assert!(is_fatal(each(&mut fresh(), one, &|_| 404)));
    assert_eq!(rejected(each(&mut flood, one, &|_| 201)), 0);
    for _ in 1..FLOOD {
        assert_eq!(rejected(each(&mut flood, one, &|_| 404)), 1);
    }
    assert!(is_fatal(each(&mut flood, one, &|_| 404)));
}

#[test]
fn a_wrong_index_waits_for_what_becomes_of_the_others() {
    let mut flood = Flood::default();
    let outcome = each_after(&mut flood, "e-{t:%Y}", &values(3, 1), |at| {
        [503, 404, 503][at]
    });
    let answer = outcome.unwrap().answer;
    assert!(answer.rejected.is_empty() && answer.cause.is_some());
    assert_eq!(answer.retry, [0, 1, 2]);
    let outcome = each_after(&mut flood, "e-{t:%Y}", &values(3, 1), |at| {
        [201, 404, 201][at]
    });
    assert_eq!(outcome.unwrap().answer.rejected[0].index, 1);
}

#[test]
fn an_index_that_was_put_away_holds_up_no_other() {
    let block = |words| Some(("cluster_block_exception", words));
    let closed = Some(("index_closed_exception", "closed"));
    let write = block("index [e-x] blocked by: [FORBIDDEN/8/index write (api)];");
    let read_only = block("index [e-x] blocked by: [FORBIDDEN/5/index read-only (api)];");
    let flood = block(
        "index [e-x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];",
    );
    let cluster = block("blocked by: [FORBIDDEN/6/cluster read-only (api)];");
    for (error, of_many, of_one) in [
        (write, "rejected", "blocked"),
        (read_only, "rejected", "blocked"),
        (closed, "rejected", "fatal index"),
        (flood, "blocked", "blocked"),
        (cluster, "blocked", "blocked"),
    ] {
        for name in ["e-{f}", "e-{t:%Y}"] {
            assert_eq!(
                word(&one(&plan(name, "auto", Op::Create), 403, error)),
                of_many,
                "{name} {error:?}"
            );
        }
        assert_eq!(
            word(&one(&plan("e", "auto", Op::Create), 400, error)),
            of_one
        );
    }
}

proptest! {
    /// Forbidden events stop nobody as long as they are few, go to one index, or another event was taken.
    #[test]
    fn forbidden_events_hold_up_no_other(
        count in 1..2 * FLOOD,
        different in 1..4_usize,
        others in prop::collection::btree_map(0..2 * FLOOD, prop_oneof![Just(201_u16), Just(400), Just(503)], 0..3),
    ) {
        let status = |at: usize| others.get(&at).copied().unwrap_or(403);
        let outcome = each("e-{f}", &values(count, different), status);
        let forbidden: Vec<usize> = (0..count).filter(|at| status(*at) == 403).collect();
        let several = forbidden.iter().any(|at| at % different != forbidden[0] % different);
        let is_flood = forbidden.len() >= FLOOD && several && (0..count).all(|at| status(at) != 201);
        prop_assert_eq!(matches!(outcome, Err(Unsettled::Fatal(_))), is_flood);
        if let Ok(Outcome { answer, .. }) = outcome {
            let rejected: Vec<usize> = answer.rejected.iter().map(|event| event.index).collect();
            let expected: Vec<usize> = (0..count).filter(|at| matches!(status(*at), 400 | 403)).collect();
            prop_assert_eq!(rejected, expected);
        }
    }
}
