//! A JSON value straight from the payload's bytes into a column, for the values that need no second look.
//!
//! Any doubt is an error without words; the caller takes the row back and reads the event again through [`exact`](super::exact), which
//! decides. So this path may refuse what `exact` takes, but never takes what `exact` refuses, nor takes it differently.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use super::column::{Buffers, Data};
use super::exact;
use super::schema::HiveType;

/// Appends one value to a column.
pub(super) struct Cell<'c>(pub(super) &'c mut Buffers);

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.kind)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.0.push_null();
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0.kind {
            HiveType::String
            | HiveType::Varchar(_)
            | HiveType::Char(_)
            | HiveType::Binary
            | HiveType::Date => deserializer.deserialize_str(self),
            HiveType::Boolean => deserializer.deserialize_bool(self),
            HiveType::TinyInt | HiveType::SmallInt | HiveType::Int | HiveType::BigInt => {
                deserializer.deserialize_i64(self)
            }
            // Through the number's own digits: serde_json's direct way to a float may be off by one in the last place.
            HiveType::Float | HiveType::Double => {
                let number: Number = serde::Deserialize::deserialize(deserializer)?;
                exact::push(self.0, &Value::Number(number)).map_err(|_| doubt())
            }
            HiveType::Array(_) => deserializer.deserialize_seq(self),
            HiveType::Struct(_) => deserializer.deserialize_map(self),
            HiveType::Decimal { .. } | HiveType::Timestamp | HiveType::Map(..) => {
                let value: Value = serde::Deserialize::deserialize(deserializer)?;
                exact::push(self.0, &value).map_err(|_| doubt())
            }
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let Data::Boolean(values) = &mut self.0.data else {
            return Err(doubt());
        };
        values.push(value);
        self.0.valid.push(true);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match &mut self.0.data {
            Data::I8(values) => values.push(value.try_into().map_err(|_| doubt())?),
            Data::I16(values) => values.push(value.try_into().map_err(|_| doubt())?),
            Data::I32(values) => values.push(value.try_into().map_err(|_| doubt())?),
            Data::I64(values) => values.push(value),
            _ => return Err(doubt()),
        }
        self.0.valid.push(true);
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_i64(value.try_into().map_err(|_| doubt())?)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let Buffers { kind, valid, data } = self.0;
        match data {
            Data::Bytes { bytes, ends } => {
                exact::push_text(kind, text, bytes).map_err(|_| doubt())?;
                ends.push(bytes.len() as i32);
            }
            Data::I32(values) if *kind == HiveType::Date => {
                values.push(exact::date(text).ok_or_else(doubt)?);
            }
            _ => return Err(doubt()),
        }
        valid.push(true);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Data::Array { item, ends } = &mut self.0.data else {
            return Err(doubt());
        };
        while items.next_element_seed(Cell(item))?.is_some() {}
        ends.push(item.len() as i32);
        self.0.valid.push(true);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Buffers { valid, data, .. } = self.0;
        let Data::Struct(fields) = data else {
            return Err(doubt());
        };
        let row = valid.len();
        while let Some(found) = entries.next_key_seed(FieldName(fields))? {
            match found {
                None => {
                    entries.next_value::<IgnoredAny>()?;
                }
                // Twice the same field: which one counts is not decided here.
                Some(index) if fields[index].1.len() > row => return Err(doubt()),
                Some(index) => entries.next_value_seed(Cell(&mut fields[index].1))?,
            }
        }
        for (_, field) in fields {
            if field.len() == row {
                field.push_null();
            }
        }
        valid.push(true);
        Ok(())
    }
}

/// Finds a struct's field by its name.
struct FieldName<'f>(&'f [(String, Buffers)]);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let exactly = self.0.iter().position(|(field, _)| field == name);
        Ok(exactly.or_else(|| {
            self.0
                .iter()
                .position(|(field, _)| exact::same_but_case(field, name))
        }))
    }
}

/// The words are thrown away: the exact path finds its own.
pub(super) fn doubt<E: Error>() -> E {
    E::custom("not decided on the fast path")
}
