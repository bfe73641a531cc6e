//! Growing columns: values are appended row by row, a row that turns out bad is taken back, and the whole becomes an Arrow array.
//!
//! Arrow's own builders can't take a row back, which is what an event that fails in its last column needs.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, ListArray, MapArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use super::schema::{Column, HiveType, map_fields};

/// One column, or a part of a nested one.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) kind: HiveType,
    pub(super) valid: Vec<bool>,
    pub(super) data: Data,
}

/// The values, one for each row, null or not. Ends of texts and lists are counted from the start of the buffer.
#[derive(Debug)]
pub(super) enum Data {
    /// string, varchar, char, binary. Bytes are UTF-8 but for binary.
    Bytes {
        bytes: Vec<u8>,
        ends: Vec<i32>,
    },
    Boolean(Vec<bool>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    /// int, date (days since 1970).
    I32(Vec<i32>),
    /// bigint, timestamp (microseconds since 1970).
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    Array {
        item: Box<Buffers>,
        ends: Vec<i32>,
    },
    Map {
        keys: Box<Buffers>,
        values: Box<Buffers>,
        ends: Vec<i32>,
    },
    Struct(Vec<(String, Buffers)>),
}

impl Buffers {
    /// With room for so many values; parts of a nested column take what they need.
    pub(super) fn new(kind: &HiveType, rows: usize) -> Buffers {
        let data = match kind {
            HiveType::String | HiveType::Varchar(_) | HiveType::Char(_) | HiveType::Binary => {
                Data::Bytes {
                    bytes: Vec::new(),
                    ends: Vec::with_capacity(rows),
                }
            }
            HiveType::Boolean => Data::Boolean(Vec::with_capacity(rows)),
            HiveType::TinyInt => Data::I8(Vec::with_capacity(rows)),
            HiveType::SmallInt => Data::I16(Vec::with_capacity(rows)),
            HiveType::Int | HiveType::Date => Data::I32(Vec::with_capacity(rows)),
            HiveType::BigInt | HiveType::Timestamp => Data::I64(Vec::with_capacity(rows)),
            HiveType::Float => Data::F32(Vec::with_capacity(rows)),
            HiveType::Double => Data::F64(Vec::with_capacity(rows)),
            HiveType::Decimal { .. } => Data::I128(Vec::with_capacity(rows)),
            HiveType::Array(item) => Data::Array {
                item: Box::new(Buffers::new(item, 0)),
                ends: Vec::with_capacity(rows),
            },
            HiveType::Map(key, value) => Data::Map {
                keys: Box::new(Buffers::new(key, 0)),
                values: Box::new(Buffers::new(value, 0)),
                ends: Vec::with_capacity(rows),
            },
            HiveType::Struct(fields) => Data::Struct(
                fields
                    .iter()
                    .map(|Column { name, kind }| (name.clone(), Buffers::new(kind, 0)))
                    .collect(),
            ),
        };
        Buffers {
            kind: kind.clone(),
            valid: Vec::with_capacity(rows),
            data,
        }
    }

    pub(super) fn kind(&self) -> &HiveType {
        &self.kind
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    pub(super) fn push_null(&mut self) {
        self.valid.push(false);
        match &mut self.data {
            Data::Bytes { bytes, ends } => ends.push(bytes.len() as i32),
            Data::Boolean(values) => values.push(false),
            Data::I8(values) => values.push(0),
            Data::I16(values) => values.push(0),
            Data::I32(values) => values.push(0),
            Data::I64(values) => values.push(0),
            Data::F32(values) => values.push(0.0),
            Data::F64(values) => values.push(0.0),
            Data::I128(values) => values.push(0),
            Data::Array { item, ends } => ends.push(item.len() as i32),
            Data::Map { keys, ends, .. } => ends.push(keys.len() as i32),
            Data::Struct(fields) => fields.iter_mut().for_each(|(_, field)| field.push_null()),
        }
    }

    /// Keeps the first `rows` rows, also where a later row was only begun.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.data {
            Data::Bytes { bytes, ends } => bytes.truncate(cut(ends, rows)),
            Data::Boolean(values) => values.truncate(rows),
            Data::I8(values) => values.truncate(rows),
            Data::I16(values) => values.truncate(rows),
            Data::I32(values) => values.truncate(rows),
            Data::I64(values) => values.truncate(rows),
            Data::F32(values) => values.truncate(rows),
            Data::F64(values) => values.truncate(rows),
            Data::I128(values) => values.truncate(rows),
            Data::Array { item, ends } => item.truncate(cut(ends, rows)),
            Data::Map { keys, values, ends } => {
                let entries = cut(ends, rows);
                keys.truncate(entries);
                values.truncate(entries);
            }
            Data::Struct(fields) => fields
                .iter_mut()
                .for_each(|(_, field)| field.truncate(rows)),
        }
    }

    /// Everything appended so far as an Arrow array of the column's type.
    pub(super) fn into_array(self) -> Result<ArrayRef, ArrowError> {
        let rows = self.valid.len();
        let nulls = if self.valid.iter().all(|valid| *valid) {
            None
        } else {
            Some(NullBuffer::from(self.valid))
        };
        Ok(match self.data {
            Data::Bytes { bytes, ends } => {
                let (offsets, bytes) = (offsets(&ends), Buffer::from_vec(bytes));
                match self.kind {
                    HiveType::Binary => Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?),
                    _ => Arc::new(StringArray::try_new(offsets, bytes, nulls)?),
                }
            }
            Data::Boolean(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Data::I8(values) => Arc::new(Int8Array::try_new(values.into(), nulls)?),
            Data::I16(values) => Arc::new(Int16Array::try_new(values.into(), nulls)?),
            Data::I32(values) => match self.kind {
                HiveType::Date => Arc::new(Date32Array::try_new(values.into(), nulls)?),
                _ => Arc::new(Int32Array::try_new(values.into(), nulls)?),
            },
            Data::I64(values) => match self.kind {
                HiveType::Timestamp => Arc::new(
                    TimestampMicrosecondArray::try_new(values.into(), nulls)?.with_timezone("UTC"),
                ),
                _ => Arc::new(Int64Array::try_new(values.into(), nulls)?),
            },
            Data::F32(values) => Arc::new(Float32Array::try_new(values.into(), nulls)?),
            Data::F64(values) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            Data::I128(values) => Arc::new(
                Decimal128Array::try_new(values.into(), nulls)?
                    .with_data_type(self.kind.to_arrow()),
            ),
            Data::Array { item, ends } => {
                let DataType::List(field) = self.kind.to_arrow() else {
                    return Err(shape("array"));
                };
                Arc::new(ListArray::try_new(
                    field,
                    offsets(&ends),
                    item.into_array()?,
                    nulls,
                )?)
            }
            Data::Map { keys, values, ends } => {
                let fields = map_fields(keys.kind(), values.kind());
                map_array(
                    &self.kind,
                    fields,
                    keys.into_array()?,
                    values.into_array()?,
                    &ends,
                    nulls,
                )?
            }
            Data::Struct(fields) => {
                let DataType::Struct(names) = self.kind.to_arrow() else {
                    return Err(shape("struct"));
                };
                let arrays = fields
                    .into_iter()
                    .map(|(_, field)| field.into_array())
                    .collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(
                    names, arrays, nulls, rows,
                )?)
            }
        })
    }
}

fn map_array(
    kind: &HiveType,
    fields: Fields,
    keys: ArrayRef,
    values: ArrayRef,
    ends: &[i32],
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let DataType::Map(entry, sorted) = kind.to_arrow() else {
        return Err(shape("map"));
    };
    let entries = StructArray::try_new(fields, vec![keys, values], None)?;
    let entry: Arc<Field> = entry;
    Ok(Arc::new(MapArray::try_new(
        entry,
        offsets(ends),
        entries,
        nulls,
        sorted,
    )?))
}

fn shape(kind: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(format!("a column of type {kind} has no such Arrow type"))
}

/// Keeps the first `rows` ends and answers with the last of them.
fn cut(ends: &mut Vec<i32>, rows: usize) -> usize {
    ends.truncate(rows);
    ends.last().map_or(0, |end| *end as usize)
}

/// Arrow's offsets begin with 0.
fn offsets(ends: &[i32]) -> OffsetBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend_from_slice(ends);
    OffsetBuffer::new(offsets.into())
}
