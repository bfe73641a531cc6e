use proptest::prelude::*;
use serde_json::json;

use super::super::bulk::encode;
use super::super::bulk::tests::{plan, texts};
use super::super::flood::Flood;
use super::*;

mod floods;

/// What is made of an answer by a process that has seen no other.
fn settle(
    body: &[u8],
    request: &Request,
    plan: &Plan,
    batch: &Batch,
) -> Result<Outcome, Unsettled> {
    settle_after(&mut Flood::default(), body, request, plan, batch)
}

fn settle_after(
    flood: &mut Flood,
    body: &[u8],
    request: &Request,
    plan: &Plan,
    batch: &Batch,
) -> Result<Outcome, Unsettled> {
    let mut outcome = super::settle(body, request, plan, batch)?;
    flood.judge(&mut outcome).map_err(Unsettled::Fatal)?;
    Ok(outcome)
}

fn item(op: &str, id: &str, status: u16, error: Option<(&str, &str)>) -> Value {
    let mut item = json!({"_id": id, "status": status});
    if let Some((kind, reason)) = error {
        item["error"] = json!({"type": kind, "reason": reason});
    }
    json!({ op: item })
}

/// The answer of one item about one event.
fn one(plan: &Plan, status: u16, error: Option<(&str, &str)>) -> Result<Outcome, Unsettled> {
    let batch = texts(&[r#"{"f":"x","t":"2026-11-23T11:00:00Z"}"#]);
    let request = encode(&batch, plan);
    let id = request.id(&request.sent[0]).unwrap_or("made").to_owned();
    let body = json!({"items": [item(plan.op.as_str(), &id, status, error)]}).to_string();
    settle(body.as_bytes(), &request, plan, &batch)
}

fn word(outcome: &Result<Outcome, Unsettled>) -> String {
    match outcome {
        Err(Unsettled::Fatal(text)) => {
            let option = text.rsplit("sink.elasticsearch.").next().unwrap();
            format!("fatal {option}")
        }
        Err(Unsettled::Unreadable(_)) => "unreadable".to_owned(),
        Ok(outcome) if outcome.suppressed == 1 => "suppressed".to_owned(),
        Ok(outcome) if outcome.overwritten == 1 => "overwritten".to_owned(),
        Ok(outcome) if !outcome.answer.rejected.is_empty() => "rejected".to_owned(),
        Ok(outcome) => match &outcome.answer.cause {
            Some(cause) => {
                assert_eq!(outcome.answer.retry, [0]);
                cause.reason.to_owned()
            }
            None => "delivered".to_owned(),
        },
    }
}

#[test]
fn each_item_status_has_its_verdict() {
    let create = plan("e", "offset", Op::Create);
    let conflict = Some((
        "version_conflict_engine_exception",
        "document already exists",
    ));
    let block = Some((
        "cluster_block_exception",
        "index [e] blocked by: [FORBIDDEN/8/index write (api)];",
    ));
    let mapping = Some(("document_parsing_exception", "[1:6] failed to parse"));
    let full = Some((
        "validation_exception",
        "Validation Failed: 1: this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;",
    ));
    let quoted = Some((
        "document_parsing_exception",
        "value: 'Validation Failed maximum normal shards open'",
    ));
    let no_new_index = Some((
        "index_create_block_exception",
        "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];",
    ));
    let series = Some((
        "illegal_argument_exception",
        "_id must be unset or set to [AAE] but was [t-3-100] because [.ds-e-1] is in time_series mode",
    ));
    let cases = [
        (201, None, "delivered"),
        (200, None, "overwritten"),
        (409, conflict, "suppressed"),
        (409, Some(("other", "r")), "rejected"),
        (400, mapping, "rejected"),
        (400, quoted, "rejected"),
        (413, Some(("too_large", "r")), "rejected"),
        (404, Some(("document_missing_exception", "r")), "rejected"),
        (400, full, "blocked"),
        (403, block, "blocked"),
        (429, block, "blocked"),
        (
            429,
            Some(("es_rejected_execution_exception", "r")),
            "http_429",
        ),
        (503, Some(("unavailable_shards_exception", "r")), "http_5xx"),
        (500, Some(("x", "r")), "http_5xx"),
        (500, Some(("fail_processor_exception", "no")), "rejected"),
        (
            500,
            Some(("find_match", "Unable to find match")),
            "rejected",
        ),
        // The server's own fault, or time that was short.
        (500, Some(("runtime_exception", "r")), "http_5xx"),
        (403, no_new_index, "blocked"),
        (400, series, "fatal id=auto"),
        (408, Some(("x", "r")), "timeout"),
        (403, Some(("security_exception", "r")), "fatal index"),
        // `.security` is away, where roles stand.
        (
            403,
            Some((
                "security_exception",
                "with effective roles [] (assigned roles [w] were not found)",
            )),
            "http_403",
        ),
        // One of the user's roles is not there, and the others don't let it write to this index.
        (
            403,
            Some((
                "security_exception",
                "with effective roles [a] (assigned roles [w] were not found)",
            )),
            "fatal index",
        ),
        (
            404,
            Some(("index_not_found_exception", "no such index [e]")),
            "fatal index",
        ),
        (
            400,
            Some(("index_closed_exception", "closed")),
            "fatal index",
        ),
        (
            400,
            Some((
                "illegal_argument_exception",
                "only write ops with an op_type of create are allowed in data streams",
            )),
            "fatal op.type=create",
        ),
        (
            400,
            Some((
                "illegal_argument_exception",
                "pipeline with id [p] does not exist",
            )),
            "fatal pipeline",
        ),
        (
            400,
            Some((
                "illegal_argument_exception",
                "no write index is defined for alias [e]. The write",
            )),
            "fatal index",
        ),
        // Neither a success nor an error.
        (202, None, "unreadable"),
        (404, None, "unreadable"),
        (0, None, "unreadable"),
        (201, Some(("x", "r")), "unreadable"),
        (302, Some(("x", "r")), "unreadable"),
    ];
    for (status, error, expected) in cases {
        assert_eq!(
            word(&one(&create, status, error)),
            expected,
            "{status} {error:?}"
        );
    }
}

#[test]
fn a_conflict_means_delivered_before_only_for_a_create_with_an_id_of_ours() {
    let conflict = Some((
        "version_conflict_engine_exception",
        "document already exists",
    ));
    for (id, op, expected) in [
        ("offset", Op::Create, "suppressed"),
        ("f", Op::Create, "suppressed"),
        ("auto", Op::Create, "conflict"),
        ("offset", Op::Index, "rejected"),
        ("f", Op::Index, "rejected"),
    ] {
        assert_eq!(
            word(&one(&plan("e", id, op), 409, conflict)),
            expected,
            "{id} {op:?}"
        );
    }
    // An update of a document with an id from a field is no duplicate.
    assert_eq!(
        word(&one(&plan("e", "f", Op::Index), 200, None)),
        "delivered"
    );
}

#[test]
fn a_conflict_of_versions_means_that_a_later_event_is_there() {
    let conflict = Some(("version_conflict_engine_exception", "version conflict"));
    let index = plan("e", "f", Op::Index);
    assert_eq!(word(&one(&index, 409, conflict)), "rejected");
    let later = Plan {
        later_wins: true,
        ..index
    };
    assert_eq!(word(&one(&later, 409, conflict)), "suppressed");
    assert_eq!(word(&one(&later, 200, None)), "delivered");
}

#[test]
fn a_missing_index_is_the_events_fault_only_where_a_field_names_it() {
    let missing = Some(("index_not_found_exception", "no such index"));
    let by_field = one(&plan("e-{f}", "auto", Op::Create), 404, missing).unwrap();
    assert_eq!(
        by_field.answer.rejected[0].reason,
        "elasticsearch answered 404 index_not_found_exception: no such index (index e-x)"
    );
    assert!(matches!(
        one(&plan("e", "auto", Op::Create), 404, missing),
        Err(Unsettled::Fatal(_))
    ));
}

/// The reason for a time series stands in the cause; other documents may quote its words.
#[test]
fn a_time_series_takes_no_ids_of_ours() {
    let plan = plan("e", "offset", Op::Create);
    let batch = texts(&["{}"]);
    let request = encode(&batch, &plan);
    let words = "_id must be unset or set to [AAE] but was [t-3-100] because [.ds-e-1] is in time_series mode";
    let settled = |reason: &str, cause: &str| {
        let mut refused = item(
            "create",
            "t-3-100",
            400,
            Some(("document_parsing_exception", reason)),
        );
        refused["create"]["error"]["caused_by"] =
            json!({"type": "illegal_argument_exception", "reason": cause});
        let body = json!({"items": [refused]}).to_string();
        settle(body.as_bytes(), &request, &plan, &batch)
    };
    assert_eq!(word(&settled("[1:6] failed", words)), "fatal id=auto");
    let quoted = format!("failed: {words}");
    assert_eq!(word(&settled(&quoted, &quoted)), "rejected");
}

#[test]
fn no_value_of_an_event_leaves_but_in_a_dead_letter() {
    let plan = plan("e-{f}", "id", Op::Index);
    let batch = texts(&[r#"{"f":"x","id":"secret"}"#, r#"{"f":"x","id":"secret"}"#]);
    let request = encode(&batch, &plan);
    let settled = |status: u16, kind: &str, reason: &str| {
        let refused = || item("index", "secret", status, Some((kind, reason)));
        let body = json!({"items": [refused(), refused()]}).to_string();
        settle(body.as_bytes(), &request, &plan, &batch)
    };
    let shard = "[e-x][0] primary shard is not active Timeout: [45s], request: [BulkShardRequest [[e-x][0]] containing [index {[e-x][secret], source[{\"id\":\"secret\"}]}]]";
    let stream = "only write ops with an op_type of create are allowed in data streams";
    let block =
        "index [e-x] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark];";
    for (status, kind, reason, told) in [
        (
            503,
            "unavailable_shards_exception",
            shard,
            "503 unavailable_shards_exception: [e-x][0] primary shard is not active Timeout: [45s] (index e-x)",
        ),
        (
            429,
            "es_rejected_execution_exception",
            "rejected execution of primary [secret]",
            "429 es_rejected_execution_exception (index e-x)",
        ),
        (429, "cluster_block_exception", block, block),
        (400, "illegal_argument_exception", stream, stream),
    ] {
        let text = match settled(status, kind, reason) {
            Ok(outcome) => outcome.answer.cause.unwrap().detail,
            Err(Unsettled::Fatal(text)) => text,
            Err(Unsettled::Unreadable(text)) => panic!("{text}"),
        };
        assert!(text.contains(told) && !text.contains("secret"), "{text}");
    }
    let rejected = settled(400, "x", "secret").unwrap().answer.rejected;
    assert_eq!(
        rejected[0].reason,
        "elasticsearch answered 400 x: secret (index e-x, id secret)"
    );
    for body in [
        r#"{"items":[{"index":{"_id":"other","status":400,"error":{"type":"x"}}},{}]}"#,
        r#"{"items":[{"index":{"_id":"secret","status":"secret"}}]}"#,
        r#"{"items":[{"index":{"status":201}},{"index":{"status":201}}]}"#,
    ] {
        let Err(Unsettled::Unreadable(text)) = settle(body.as_bytes(), &request, &plan, &batch)
        else {
            panic!("{body}")
        };
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn a_pipeline_that_sets_other_ids_stops_the_worker() {
    let plan = plan("e", "offset", Op::Create);
    let batch = texts(&["{}", "{}"]);
    let request = encode(&batch, &plan);
    let settled = |items: Value| {
        let body = json!({"items": items}).to_string();
        settle(body.as_bytes(), &request, &plan, &batch)
    };
    let taken = |id: &str| item("create", id, 201, None);
    let answer = settled(json!([taken("a"), taken("b")]));
    assert!(
        matches!(&answer, Err(Unsettled::Fatal(text)) if text.contains("sink.elasticsearch.pipeline")),
        "{answer:?}"
    );
    // Of some events only, and whatever became of them.
    for others in [
        taken("t-3-101"),
        item("create", "t-3-101", 400, Some(("x", "r"))),
        item("create", "t-3-101", 503, Some(("x", "r"))),
    ] {
        let answer = settled(json!([taken("a"), others]));
        assert!(matches!(answer, Err(Unsettled::Fatal(_))), "{answer:?}");
    }
    let refused = item("create", "b", 400, Some(("x", "r")));
    let answer = settled(json!([taken("t-3-100"), refused]));
    assert!(matches!(answer, Err(Unsettled::Fatal(_))), "{answer:?}");
    // All ids were sent: then the answer is no answer to this request.
    for items in [
        json!([taken("t-3-101"), taken("t-3-100")]),
        json!([taken("t-3-100"), taken("t-3-100")]),
    ] {
        let answer = settled(items);
        assert!(
            matches!(answer, Err(Unsettled::Unreadable(_))),
            "{answer:?}"
        );
    }
}

#[test]
fn an_event_that_a_pipeline_dropped_is_settled_and_is_no_duplicate() {
    let plan = plan("e", "offset", Op::Index);
    let batch = texts(&["{}"]);
    let request = encode(&batch, &plan);
    let body = r#"{"items":[{"index":{"_id":"t-3-100","result":"noop","status":200}}]}"#;
    let outcome = settle(body.as_bytes(), &request, &plan, &batch).unwrap();
    assert_eq!((outcome.dropped, outcome.overwritten), (1, 0));
    assert!(outcome.answer.rejected.is_empty() && outcome.answer.retry.is_empty());
    // It shows of no index that it takes events.
    assert_eq!(outcome.taken, 0);
    let body = body.replace("noop", "updated");
    let outcome = settle(body.as_bytes(), &request, &plan, &batch).unwrap();
    assert_eq!((outcome.dropped, outcome.overwritten), (0, 1));
}

#[test]
fn a_mixed_answer_is_taken_apart_event_by_event() {
    let plan = plan("events", "offset", Op::Create);
    let batch = texts(&["{}", "7", r#"{"n":"x"}"#, "{}", "{}", "{}"]);
    let request = encode(&batch, &plan);
    let mut bad = item(
        "create",
        "t-3-102",
        400,
        Some(("document_parsing_exception", "failed to parse field [n]")),
    );
    bad["create"]["error"]["caused_by"] =
        json!({"type": "illegal_argument_exception", "reason": "For input string: \"x\""});
    let body = json!({"took": 3, "errors": true, "items": [
        {"create": {"_index": "events", "_id": "t-3-100", "_version": 1, "result": "created", "_shards": {"total": 2}, "status": 201}},
        bad,
        item("create", "t-3-103", 429, Some(("es_rejected_execution_exception", "queue full"))),
        item("create", "t-3-104", 409, Some(("version_conflict_engine_exception", "exists"))),
        item("create", "t-3-105", 503, Some(("unavailable_shards_exception", "no primary"))),
    ]});
    let outcome = settle(body.to_string().as_bytes(), &request, &plan, &batch).unwrap();
    assert_eq!(outcome.answer.retry, [3, 5]);
    assert_eq!(outcome.suppressed, 1);
    let cause = outcome.answer.cause.unwrap();
    assert_eq!(cause.reason, "http_429");
    assert_eq!(
        cause.detail,
        "2 of 5 events were not taken, the first with elasticsearch answered 429 \
         es_rejected_execution_exception (index events, id t-3-103)"
    );
    let rejected = &outcome.answer.rejected;
    assert_eq!(rejected.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        rejected[1].reason,
        "elasticsearch answered 400 document_parsing_exception: failed to parse field [n]; caused by \
         illegal_argument_exception: For input string: \"x\" (index events, id t-3-102)"
    );
}

#[test]
fn an_answer_that_does_not_fit_the_request_delivers_nothing() {
    let plan = plan("e", "offset", Op::Create);
    let batch = texts(&["{}", "{}"]);
    let request = encode(&batch, &plan);
    let good = |at: usize| item("create", &format!("t-3-{}", 100 + at), 201, None);
    let whole = json!({"items": [good(0), good(1)]}).to_string();
    assert!(settle(whole.as_bytes(), &request, &plan, &batch).is_ok());
    for body in [
        json!({"items": [good(0)]}),
        json!({"items": [good(0), good(1), good(1)]}),
        json!({"items": [good(1), good(0)]}),
        json!({"items": [good(0), item("index", "t-3-101", 201, None)]}),
        json!({"items": [good(0), item("delete", "t-3-101", 200, None)]}),
        json!({"items": [good(0), {"create": {"status": 201}}]}),
        json!({"items": [good(0), {"create": {"_id": "t-3-101"}}]}),
        json!({"items": [good(0), {}]}),
        json!({"items": [good(0), null]}),
        json!({"errors": false}),
        json!({"error": "x", "status": 500}),
        json!([]),
    ] {
        let body = body.to_string();
        let answer = settle(body.as_bytes(), &request, &plan, &batch);
        assert!(matches!(answer, Err(Unsettled::Unreadable(_))), "{body}");
    }
    for cut in 0..whole.len() {
        let answer = settle(&whole.as_bytes()[..cut], &request, &plan, &batch);
        assert!(matches!(answer, Err(Unsettled::Unreadable(_))), "{cut}");
    }
    let more = format!("{whole}{whole}");
    assert!(settle(more.as_bytes(), &request, &plan, &batch).is_err());
}

/// There a document has an id that Elasticsearch made.
#[test]
fn the_failure_store_counts_as_delivered_and_is_counted() {
    let batch = texts(&["{}", "{}"]);
    for id in ["auto", "offset"] {
        let plan = plan("e", id, Op::Create);
        let request = encode(&batch, &plan);
        let body = r#"{"items":[{"create":{"_id":"x","status":201,"failure_store":"used"}},
            {"create":{"_id":"t-3-101","status":201}}]}"#;
        let outcome = settle(body.as_bytes(), &request, &plan, &batch).unwrap();
        assert_eq!((outcome.failure_store, outcome.taken), (1, 2), "{id}");
        assert!(outcome.answer.rejected.is_empty() && outcome.answer.retry.is_empty());
        let body = body.replace(
            "201,\"failure_store\":\"used\"",
            "400,\"failure_store\":\"failed\",\"error\":{\"type\":\"x\"}",
        );
        let outcome = settle(body.as_bytes(), &request, &plan, &batch).unwrap();
        assert_eq!(outcome.answer.rejected[0].index, 0, "{id}");
    }
}

#[test]
fn causes_stand_on_one_line_and_only_where_they_say_more() {
    let error = json!({"type": "a", "reason": "failed: x\n at 1", "caused_by":
        {"type": "b", "reason": "x\n at 1", "caused_by": {"type": "c", "reason": "deep", "caused_by": {"type": "d"}}}});
    let mut text = String::new();
    push_error(&mut text, &error);
    assert_eq!(text, "a: failed: x  at 1; caused by c: deep; caused by d");
    let mut text = String::new();
    push_error(&mut text, &json!("plain"));
    assert_eq!(text, "plain");
}

#[test]
fn a_reason_is_bounded() {
    let long = "ß".repeat(100_000);
    let outcome = one(
        &plan("e", "offset", Op::Index),
        400,
        Some(("mapper_parsing_exception", &long)),
    )
    .unwrap();
    let reason = &outcome.answer.rejected[0].reason;
    assert!(reason.chars().count() < MAX_REASON_CHARS + 100);
    assert!(reason.ends_with("… (index e, id t-3-100)"), "{reason}");
}

proptest! {
    /// Every event ends in exactly one place, and only a 200, a 201 or a conflict delivers.
    #[test]
    fn an_event_is_delivered_only_by_its_own_item(statuses in prop::collection::vec(
        prop_oneof![Just(200_u16), Just(201), Just(409), Just(400), Just(413), Just(429), Just(500), Just(503)], 1..20)
    ) {
        let plan = plan("e", "offset", Op::Create);
        let batch = texts(&vec!["{}"; statuses.len()]);
        let request = encode(&batch, &plan);
        let items: Vec<Value> = statuses.iter().enumerate().map(|(at, status)| {
            let error = (*status > 201).then_some(("version_conflict_engine_exception", "r"));
            item("create", &format!("t-3-{}", 100 + at), *status, error)
        }).collect();
        let body = json!({"items": items}).to_string();
        let outcome = settle(body.as_bytes(), &request, &plan, &batch).unwrap();
        let rejected: Vec<usize> = outcome.answer.rejected.iter().map(|r| r.index).collect();
        for (at, status) in statuses.iter().enumerate() {
            let retried = outcome.answer.retry.contains(&at);
            prop_assert_eq!(retried, *status == 429 || *status >= 500);
            prop_assert_eq!(rejected.contains(&at), *status == 400 || *status == 413);
        }
        prop_assert!(rejected.is_sorted() && outcome.answer.retry.is_sorted());
        prop_assert_eq!(outcome.answer.cause.is_some(), !outcome.answer.retry.is_empty());
    }

    #[test]
    fn no_answer_panics(body in "[\\[\\]{}\":,0-9a-z_]{0,60}") {
        let plan = plan("e", "offset", Op::Create);
        let batch = texts(&["{}"]);
        let request = encode(&batch, &plan);
        prop_assert!(settle(body.as_bytes(), &request, &plan, &batch).is_err());
    }
}
