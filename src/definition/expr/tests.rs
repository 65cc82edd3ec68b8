use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::definition::scope::{Items, Scratch};
use crate::definition::{json as text_json, tree};
use crate::event::Event;
use crate::redact::Redactor;

fn event(payload: &str) -> Event<'_> {
    Event {
        position: 41,
        project_id: Uuid::from_u128(7),
        run_id: Uuid::from_u128(8),
        version: 3,
        event_id: Uuid::from_u128(9),
        kind: "step_failed",
        payload,
        metadata: r#"{"by": "ada"}"#,
        recorded_at: Timestamp(1_774_785_599_123_456),
    }
}

/// Evaluates over one event; the result in a form that does not depend on the way it was got.
fn evaluate(expr: &Expr, payload: &str) -> Result<Value, EvalError> {
    let mut scratch = Scratch::default();
    let scope = Scope::new(event(payload), &mut scratch, &REDACTOR);
    expr.evaluate(&scope).map(|it| normal(&it))
}

fn normal(datum: &Datum<'_>) -> Value {
    let in_tree = |it: &str| serde_json::to_value(tree::build(it).unwrap()).unwrap();
    match datum {
        Datum::Null => Value::Null,
        Datum::Bool(it) => json!(it),
        Datum::Int(it) => json!(*it as f64),
        Datum::Number(it) => json!(it.parse::<f64>().unwrap().clamp(f64::MIN, f64::MAX)),
        Datum::Text(it) => json!(it),
        Datum::Json(it) => in_tree(it),
        Datum::Uuid(it) => json!(it.to_string()),
        Datum::Time(it) => json!(crate::definition::time::text(*it)),
    }
}

fn value(text: &str, payload: &str) -> Value {
    evaluate(&Expr::compile(text).unwrap(), payload).unwrap()
}

/// The same text, all of it interpreted over the tree.
fn slow(text: &str) -> Expr {
    let node = Node::Tree(Box::new(jmespath::parse(text).unwrap()));
    Expr { text: text.to_owned(), node, uses_item: false }
}

const FAST: &[&str] = &[
    "'constant'",
    "`1`",
    "`null`",
    "`[1, {\"a\": 2}]`",
    "position",
    "run_id",
    "version",
    "type",
    "recorded_at",
    "payload",
    "metadata.by",
    "payload.a",
    "payload.a.b",
    "payload.\"c d\".a",
    "payload.b.a.\"é\"",
    "payload.a || payload.b || 'c'",
    "payload.a && payload.b",
    "!(payload.a)",
    "payload.a == 'x'",
    "payload.a != `1`",
    "payload.a.b == `null`",
    "`true` == payload.b",
    "payload.a < `10`",
    "payload.a >= `0.1`",
    "version > `2`",
    "type == 'step_failed' && payload.a",
    "run_id == '00000000-0000-0000-0000-000000000008'",
    "recorded_at != '2026-01-01T00:00:00Z'",
    "date_trunc('hour', recorded_at)",
    "date_trunc('month', recorded_at)",
    "left(payload.a, `3`)",
    "left(type, `4`) == 'step'",
    "left(run_id, `8`)",
    "left(recorded_at, `10`)",
];

/// Made once: its automaton takes longer to build than all else here.
static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);

fn payloads() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_i64..12).prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        "[xé\"\\\\\n🦀]{0,4}".prop_map(Value::from),
        Just(json!("x")),
        Just(json!([])),
        Just(json!({})),
    ];
    let key = || prop::sample::select(vec!["a", "b", "c d", "é", "a\"b"]).prop_map(str::to_owned);
    let nested = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..4)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    });
    (nested, any::<bool>()).prop_map(
        |(it, is_pretty)| {
            if is_pretty { format!("{it:#}") } else { it.to_string() }
        },
    )
}

proptest! {
    #[test]
    fn the_fast_way_means_what_jmespath_means(payload in payloads(), text in prop::sample::select(FAST)) {
        let fast = Expr::compile(text).unwrap();
        prop_assert!(fast.is_fast());

        prop_assert_eq!(evaluate(&fast, &payload).unwrap(), evaluate(&slow(text), &payload).unwrap());
    }

    #[test]
    fn any_text_is_an_expression_or_not(text in r#"[a-z(){}\[\].,|&!=<>'"`0-9*@? é-]{0,40}"#) {
        if let Err(error) = Expr::compile(&text) {
            prop_assert!(error.offset <= text.len());
        }
    }

    #[test]
    fn any_payload_is_evaluated_to_something(payload in r#"[a-c{}\[\]",:\\ 0-9]{0,40}"#) {
        for text in FAST {
            let expr = Expr::compile(text).unwrap();
            let mut scratch = Scratch::default();
            drop(expr.evaluate(&Scope::new(event(&payload), &mut scratch, &REDACTOR)));
        }
    }
}

#[test]
fn what_is_not_plain_is_left_to_jmespath() {
    let payload = r#"{"items": [{"n": 1, "ok": true}, {"n": 2.5, "ok": false}], "name": "ADA"}"#;

    assert_eq!(value("payload.items[?ok].n | [0]", payload), json!(1.0));
    assert_eq!(value("sum(payload.items[].n)", payload), json!(3.5));
    assert_eq!(value("lower(payload.name) || 'nobody'", payload), json!("ada"));
    assert_eq!(value("{t: type, v: version}", payload), json!({"t": "step_failed", "v": 3}));
    assert_eq!(
        value("date_trunc('year', join('', ['2026-', '05-05']))", payload),
        json!("2026-01-01T00:00:00Z")
    );
    assert_eq!(value("payload.items[0].m", payload), Value::Null);
}

#[test]
fn a_wrong_kind_of_argument_is_an_error_and_not_a_crash() {
    for text in
        ["sum(payload.a)", "date_trunc('hour', payload.a)", "lower(payload.n)", "length(payload.n)"]
    {
        let result = evaluate(&Expr::compile(text).unwrap(), r#"{"a": "x", "n": 1}"#);
        assert!(result.is_err(), "{text}");
    }
}

#[test]
fn numbers_of_any_size_go_through() {
    let digits = "9".repeat(400);
    let payload = format!(r#"{{"big": {digits}, "float": 1e308, "small": 1}}"#);

    let mut scratch = Scratch::default();
    let scope = Scope::new(event(&payload), &mut scratch, &REDACTOR);
    let big = Expr::compile("payload.big").unwrap();
    assert_eq!(big.evaluate(&scope), Ok(Datum::Number(digits.as_str().into())));
    assert_eq!(value("payload.float", &payload), json!(1e308));
    assert_eq!(value("sum([payload.small])", &payload), json!(1.0));
}

#[test]
fn depth_costs_nothing_on_the_fast_way_and_is_bounded_on_the_other() {
    let payload = format!(r#"{{"deep": {}1{}, "a": 1}}"#, "[".repeat(20_000), "]".repeat(20_000));

    assert_eq!(value("payload.a", &payload), json!(1.0));
    assert!(evaluate(&Expr::compile("to_string(payload.a)").unwrap(), &payload).is_err());
    let payload = format!(r#"{{"deep": {}1{}, "a": 1}}"#, "[".repeat(100), "]".repeat(100));
    assert_eq!(value("to_string(payload.a)", &payload), json!("1"));
}

#[test]
fn a_key_that_stands_twice_has_its_last_value() {
    assert_eq!(
        value("payload.a", r#"{"a": 1, "\u0061": {"b": "\ud83e\udd80"}}"#),
        json!({"b": "🦀"})
    );
    assert_eq!(value("payload.a.b", r#"{"a": 1, "\u0061": {"b": "\ud83e\udd80"}}"#), json!("🦀"));
}

#[test]
fn foreach_brings_each_item_and_its_index_into_scope() {
    let payload = r#"{"items": [{"sku": "a"}, {"sku": "b"}]}"#;
    let mut scratch = Scratch::default();
    let scope = Scope::new(event(payload), &mut scratch, &REDACTOR);
    let foreach = Expr::compile("payload.items").unwrap();
    let sku = Expr::compile("item.sku").unwrap();
    let place = Expr::compile("join('-', [item.sku, to_string(index)])").unwrap();

    let items = Items::new(foreach.evaluate(&scope).unwrap(), &REDACTOR).unwrap();
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let scope = scope.with_item(item, index);
        seen.push((
            normal(&sku.evaluate(&scope).unwrap()),
            normal(&place.evaluate(&scope).unwrap()),
        ));
    }

    assert_eq!(seen, [(json!("a"), json!("a-0")), (json!("b"), json!("b-1"))]);
    assert!(Items::new(text_json::datum("3"), &REDACTOR).is_err());
    assert_eq!(Items::new(Datum::Null, &REDACTOR).unwrap().iter().count(), 0);
}
