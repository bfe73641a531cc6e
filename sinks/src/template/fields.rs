//! Finds a few fields in a JSON payload, in one pass and without building the rest of it.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The fields that a sink asks for by path, each with a slot of its own.
///
/// A path is names joined by dots: `user.id` is the member `id` of the object `user`. A name that holds a dot itself can't be
/// reached; a projection can give it another name.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    paths: Vec<String>,
    root: Node,
}

#[derive(Debug, Clone, Default)]
struct Node {
    slot: Option<usize>,
    children: Vec<(String, Node)>,
}

impl Fields {
    /// The slot of this path; the same path has the same slot.
    pub fn slot(&mut self, path: &str) -> Result<usize, String> {
        if let Some(known) = self.paths.iter().position(|known| known == path) {
            return Ok(known);
        }
        if path.is_empty() {
            return Err("the name of a field is empty".to_owned());
        }
        if path.split('.').any(str::is_empty) {
            return Err(format!("the field path {path:?} has an empty name"));
        }
        let slot = self.paths.len();
        self.paths.push(path.to_owned());
        let node = path.split('.').fold(&mut self.root, Node::child);
        node.slot = Some(slot);
        Ok(slot)
    }

    /// The path behind a slot.
    pub fn path(&self, slot: usize) -> &str {
        &self.paths[slot]
    }

    /// All that is asked for, in the order of the slots.
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// Whether nothing is asked for: the payload then need not be read.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Reads the payload once and puts what it finds into `found`, one element a slot; `None` where the field is missing.
    /// Of a name that repeats in one object the last one holds. Fails where the payload is not JSON.
    pub fn pick(
        &self,
        payload: &[u8],
        found: &mut Vec<Option<Value>>,
    ) -> Result<(), serde_json::Error> {
        found.clear();
        found.resize(self.paths.len(), None);
        let mut json = serde_json::Deserializer::from_slice(payload);
        let node = &self.root;
        Pick { node, found }.deserialize(&mut json)?;
        json.end()
    }
}

impl Node {
    fn child(&mut self, name: &str) -> &mut Node {
        let at = match self.children.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None => {
                self.children.push((name.to_owned(), Node::default()));
                self.children.len() - 1
            }
        };
        &mut self.children[at].1
    }

    /// Fills the slots of this node and below it from a value that was read whole.
    fn fill(&self, value: Option<&Value>, found: &mut [Option<Value>]) {
        if let Some(slot) = self.slot {
            found[slot] = value.cloned();
        }
        for (name, child) in &self.children {
            child.fill(value.and_then(|value| value.get(name)), found);
        }
    }
}

struct Pick<'a> {
    node: &'a Node,
    found: &'a mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        if self.node.slot.is_some() {
            let value = Value::deserialize(json)?;
            self.node.fill(Some(&value), self.found);
            return Ok(());
        }
        self.node.fill(None, self.found);
        json.deserialize_any(self)
    }
}

/// Only an object has fields; of anything else nothing is found.
impl<'de> Visitor<'de> for Pick<'_> {
    type Value = ();

    fn expecting(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Pick { node, found } = self;
        while let Some(child) = map.next_key_seed(Child(node))? {
            match child {
                Some(node) => map.next_value_seed(Pick { node, found })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Compares a key with the names of a node's children, without copying it.
struct Child<'a>(&'a Node);

impl<'de, 'a> DeserializeSeed<'de> for Child<'a> {
    type Value = Option<&'a Node>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Child<'a> {
    type Value = Option<&'a Node>;

    fn expecting(&self, form: &mut fmt::Formatter<'_>) -> fmt::Result {
        form.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let found = self.0.children.iter().find(|(known, _)| known == name);
        Ok(found.map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pick(paths: &[&str], payload: &str) -> Vec<Option<Value>> {
        let mut fields = Fields::default();
        let slots: Vec<usize> = paths
            .iter()
            .map(|path| fields.slot(path).unwrap())
            .collect();
        let mut found = Vec::new();
        fields.pick(payload.as_bytes(), &mut found).unwrap();
        slots.iter().map(|slot| found[*slot].clone()).collect()
    }

    #[test]
    fn nested_fields_and_their_parents_are_found() {
        let found = pick(
            &["a.b", "a", "c", "a.x.y"],
            r#"{"z":[{"a":1}],"a":{"b":7,"x":null},"c":"\u0041"}"#,
        );
        assert_eq!(found[0], Some(7.into()));
        assert_eq!(found[1], Some(serde_json::json!({"b": 7, "x": null})));
        assert_eq!(found[2], Some("A".into()));
        assert_eq!(found[3], None);
    }

    #[test]
    fn the_last_of_repeated_names_holds() {
        assert_eq!(pick(&["a.b"], r#"{"a":{"b":1},"a":{}}"#), [None]);
        assert_eq!(
            pick(&["a.b"], r#"{"a":3,"a":{"b":1,"b":2}}"#),
            [Some(2.into())]
        );
    }

    #[test]
    fn what_is_not_an_object_has_no_fields_and_no_json_is_an_error() {
        for payload in ["1.5", "[{\"a\":1}]", "\"a\"", "null", "true", "-3", "1e999"] {
            assert_eq!(pick(&["a"], payload), [None], "{payload}");
            let nested = format!("{{\"a\":{payload}}}");
            assert_eq!(pick(&["a.b"], &nested), [None], "{nested}");
        }
        let mut fields = Fields::default();
        fields.slot("a").unwrap();
        for payload in ["", "{", "{\"a\":1} x", "{\"a\"}"] {
            assert!(
                fields.pick(payload.as_bytes(), &mut Vec::new()).is_err(),
                "{payload}"
            );
        }
    }

    #[test]
    fn a_field_that_is_not_asked_for_may_nest_deep() {
        let deep = format!(
            "{{\"a\":1,\"d\":{}{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(pick(&["a"], &deep), [Some(1.into())]);
    }

    #[test]
    fn a_path_with_an_empty_name_is_refused() {
        for path in ["", ".", "a.", ".a", "a..b"] {
            assert!(Fields::default().slot(path).is_err(), "{path}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-c\\n\"é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_what_a_full_parse_finds(
            payload in json(),
            paths in prop::collection::vec("[a-c](\\.[a-c]){0,2}", 1..5),
        ) {
            let text = serde_json::to_string_pretty(&payload).unwrap();
            let parsed: Value = serde_json::from_str(&text).unwrap();
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            for (path, found) in paths.iter().zip(pick(&paths, &text)) {
                let expected = path.split('.').try_fold(&parsed, |value, name| {
                    value.as_object().and_then(|object| object.get(name))
                });
                prop_assert_eq!(found.as_ref(), expected);
            }
        }
    }
}
