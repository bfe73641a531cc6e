//! Differential tests against the `jmespath` crate, the expression and the event both generated.
//!
//! The reference is used where it is right. It isn't, and so these are left out or put right in [`reference`]:
//! integers beyond 2^53 and numbers beyond a float's range; `to_number` of text that is JSON but no number; `avg` of an
//! empty list; and, because this workspace keeps the digits of numbers, each number in one of its literals.

mod generate;

use std::collections::BTreeMap;

use jmespath::ast::{Ast, KeyValuePair};
use jmespath::{ErrorReason, JmespathError, Rcvar, Runtime, Variable};
use keystone_dsl::{Expression, ExpressionError, Limits, Program, Record, Verdict};
use proptest::prelude::*;
use serde_json::Value;

use generate::{event, expression, token_soup};

/// What serde_json calls the one member of the object that a number becomes for a type that doesn't know better.
const NUMBER: &str = "$serde_json::private::Number";

fn reference(expression: &str, event: &Value) -> Result<Value, JmespathError> {
    let ast = repaired(jmespath::parse(expression)?);
    let mut runtime = Runtime::new();
    runtime.register_builtin_functions();
    let to_number = |arguments: &[Rcvar], _: &mut jmespath::Context<'_>| {
        Ok(match &*arguments[0] {
            Variable::Number(_) => arguments[0].clone(),
            Variable::String(text) => match serde_json::from_str(text) {
                Ok(Value::Number(number)) => Rcvar::new(Variable::Number(number)),
                _ => Rcvar::new(Variable::Null),
            },
            _ => Rcvar::new(Variable::Null),
        })
    };
    runtime.register_function("to_number", Box::new(to_number));
    let mut context = jmespath::Context::new(expression, &runtime);
    let found = jmespath::interpret(&variable(event), &ast, &mut context)?;
    Ok(value(&found))
}

fn variable(value: &Value) -> Rcvar {
    Rcvar::new(match value {
        Value::Null => Variable::Null,
        Value::Bool(flag) => Variable::Bool(*flag),
        Value::Number(number) => Variable::Number(number.clone()),
        Value::String(text) => Variable::String(text.clone()),
        Value::Array(items) => Variable::Array(items.iter().map(variable).collect()),
        Value::Object(members) => Variable::Object(
            members
                .iter()
                .map(|(key, value)| (key.clone(), variable(value)))
                .collect(),
        ),
    })
}

fn value(variable: &Variable) -> Value {
    match variable {
        Variable::Null | Variable::Expref(_) => Value::Null,
        Variable::Bool(flag) => Value::Bool(*flag),
        Variable::Number(number) => Value::Number(number.clone()),
        Variable::String(text) => Value::String(text.clone()),
        Variable::Array(items) => Value::Array(items.iter().map(|item| value(item)).collect()),
        Variable::Object(members) => Value::Object(
            members
                .iter()
                .map(|(key, member)| (key.clone(), value(member)))
                .collect(),
        ),
    }
}

/// The tree with the numbers of its literals as numbers.
fn repaired(ast: Ast) -> Ast {
    let inside = |ast: Box<Ast>| Box::new(repaired(*ast));
    let all = |nodes: Vec<Ast>| nodes.into_iter().map(repaired).collect();
    match ast {
        Ast::Literal { offset, value } => Ast::Literal {
            offset,
            value: repaired_literal(&value),
        },
        Ast::Comparison {
            offset,
            comparator,
            lhs,
            rhs,
        } => Ast::Comparison {
            offset,
            comparator,
            lhs: inside(lhs),
            rhs: inside(rhs),
        },
        Ast::Condition {
            offset,
            predicate,
            then,
        } => Ast::Condition {
            offset,
            predicate: inside(predicate),
            then: inside(then),
        },
        Ast::Expref { offset, ast } => Ast::Expref {
            offset,
            ast: inside(ast),
        },
        Ast::Flatten { offset, node } => Ast::Flatten {
            offset,
            node: inside(node),
        },
        Ast::Function { offset, name, args } => Ast::Function {
            offset,
            name,
            args: all(args),
        },
        Ast::MultiList { offset, elements } => Ast::MultiList {
            offset,
            elements: all(elements),
        },
        Ast::MultiHash { offset, elements } => {
            let pair = |pair: KeyValuePair| KeyValuePair {
                key: pair.key,
                value: repaired(pair.value),
            };
            Ast::MultiHash {
                offset,
                elements: elements.into_iter().map(pair).collect(),
            }
        }
        Ast::Not { offset, node } => Ast::Not {
            offset,
            node: inside(node),
        },
        Ast::Projection { offset, lhs, rhs } => Ast::Projection {
            offset,
            lhs: inside(lhs),
            rhs: inside(rhs),
        },
        Ast::ObjectValues { offset, node } => Ast::ObjectValues {
            offset,
            node: inside(node),
        },
        Ast::And { offset, lhs, rhs } => Ast::And {
            offset,
            lhs: inside(lhs),
            rhs: inside(rhs),
        },
        Ast::Or { offset, lhs, rhs } => Ast::Or {
            offset,
            lhs: inside(lhs),
            rhs: inside(rhs),
        },
        Ast::Subexpr { offset, lhs, rhs } => Ast::Subexpr {
            offset,
            lhs: inside(lhs),
            rhs: inside(rhs),
        },
        leaf @ (Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Slice { .. }) => leaf,
    }
}

fn repaired_literal(literal: &Variable) -> Rcvar {
    Rcvar::new(match literal {
        Variable::Object(members) => match members.get(NUMBER).and_then(|text| text.as_string()) {
            Some(digits) => Variable::Number(serde_json::from_str(digits).unwrap()),
            None => {
                let members: BTreeMap<_, _> = members
                    .iter()
                    .map(|(key, value)| (key.clone(), repaired_literal(value)))
                    .collect();
                Variable::Object(members)
            }
        },
        Variable::Array(items) => {
            Variable::Array(items.iter().map(|item| repaired_literal(item)).collect())
        }
        other => other.clone(),
    })
}

/// Equal by meaning: numbers by value, strings that hold JSON (from `to_string`) as JSON.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => {
            a == b
                || match (serde_json::from_str(a), serde_json::from_str(b)) {
                    (Ok(a), Ok(b)) => same(&a, &b),
                    _ => false,
                }
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// Both agree on one expression that both accept.
fn agree(text: &str, event_text: &str) -> Result<(), TestCaseError> {
    let expression =
        Expression::compile(text).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let event: Value = serde_json::from_str(event_text).unwrap();
    let mut out = Vec::new();
    let found = expression.search(&Record::of(event_text.as_bytes()), &mut out);
    let expected = match reference(text, &event) {
        // Not an error of the event: a number that the reference can't hold.
        Err(JmespathError {
            reason: ErrorReason::Parse(why),
            ..
        }) if why.contains("f64") || why.contains("number") => {
            return Ok(());
        }
        other => other,
    };
    match (&expected, &found) {
        (Ok(expected), Ok(())) => {
            let found: Value = serde_json::from_slice(&out).unwrap();
            prop_assert!(
                same(&found, expected),
                "{} on {}: expected {}, found {}",
                text,
                event_text,
                expected,
                found
            );
            applied(text, event_text, expected, &out)?;
        }
        (Err(_), Err(error)) => prop_assert!(!error.reason.is_empty() && out.is_empty()),
        _ => prop_assert!(
            false,
            "{} on {}: expected {:?}, found {:?}",
            text,
            event_text,
            expected,
            found
        ),
    }
    Ok(())
}

/// The same expression as a filter and as a projection.
fn applied(text: &str, event: &str, expected: &Value, written: &[u8]) -> Result<(), TestCaseError> {
    // A route refuses what has one result whatever the event.
    if let Err(errors) = Program::compile(Some(text), None, Limits::default()) {
        let odd = |error: &ExpressionError| !error.message.contains(" is always ");
        prop_assert!(!errors.iter().any(odd), "{:?}", errors);
        return Ok(());
    }
    let apply = |filter, projection| {
        let mut out = b"before".to_vec();
        let program = Program::compile(filter, projection, Limits::default()).unwrap();
        let verdict = program
            .evaluator()
            .apply(&Record::of(event.as_bytes()), &mut out)
            .unwrap();
        (verdict, out)
    };
    let verdict = if truth(expected) {
        Verdict::Unchanged
    } else {
        Verdict::Filtered
    };
    prop_assert_eq!(apply(Some(text), None), (verdict, b"before".to_vec()));
    let projected = match expected {
        Value::Null => (Verdict::Discarded, b"before".to_vec()),
        _ => (Verdict::Projected, [b"before", written].concat()),
    };
    prop_assert_eq!(apply(None, Some(text)), projected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_expressions_agree_with_the_reference(text in expression(), event in event()) {
        agree(&text, &event)?;
    }

    /// `to_string` shows digits and the order of keys, so it is only put around the whole.
    #[test]
    fn to_string_agrees_with_the_reference(text in expression(), event in event()) {
        agree(&format!("to_string({text})"), &event)?;
    }

    /// What this parser accepts, the reference accepts and understands the same way.
    #[test]
    fn no_text_is_accepted_that_the_reference_rejects(text in token_soup(), event in event()) {
        if Expression::compile(&text).is_ok() {
            agree(&text, &event)?;
        }
    }
}
