//! The columns of a table: Hive's type words to types, and types to Arrow.
//!
//! ```text
//! columns := column ("," column)*          column := name type
//! name    := letters, digits and "_", or any text in backticks
//! type    := string | varchar(n) | char(n) | binary | boolean
//!          | tinyint | smallint | int | bigint | float | double | decimal(p,s) | timestamp | date
//!          | array<type> | map<type,type> | struct<name:type, …>
//! ```
//!
//! Words are case-insensitive. Beside Hive's own words its synonyms are taken: `integer`, `dec`, `numeric`, `double precision`,
//! and `decimal` alone, which is `decimal(10,0)`. Keys of a map are `string` or a whole-number type, since keys of JSON are texts.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema, SchemaRef, TimeUnit};

/// A type of Hive that has a column in Parquet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HiveType {
    String,
    /// At most this many characters.
    Varchar(u32),
    /// At most this many characters. Not padded.
    Char(u32),
    Binary,
    Boolean,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// An instant with microseconds.
    Timestamp,
    Date,
    Array(Box<HiveType>),
    Map(Box<HiveType>, Box<HiveType>),
    Struct(Vec<Column>),
}

/// A named column, or a field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: HiveType,
}

/// What is wrong with a column list, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {message}")]
pub struct SchemaError {
    /// The first character is 1.
    pub position: usize,
    pub message: String,
}

/// What a column list may be, for error messages.
pub const FORM: &str = "a column list in Hive's words, for example `event_id string, duration_ms bigint, tags array<string>`";

const TYPES: &str = "string, varchar(n), char(n), binary, boolean, tinyint, smallint, int, bigint, float, double, decimal(p,s), timestamp, date, array<…>, map<…,…>, struct<name:type,…>";

/// Deeper types are refused: readers of the files recurse.
const MAX_DEPTH: usize = 32;

/// Parses `name type, name type, …`.
pub fn parse_columns(text: &str) -> Result<Vec<Column>, SchemaError> {
    let mut parser = Parser::new(text);
    let mut columns = Vec::new();
    loop {
        let start = parser.skip_space();
        let name = parser.name()?;
        add(&mut columns, name, start, &mut parser, 0)?;
        if parser.at_end() {
            return Ok(columns);
        }
        parser.expect(',')?;
    }
}

/// Parses one type, as the metastore stores it with each column.
pub fn parse_type(text: &str) -> Result<HiveType, SchemaError> {
    let mut parser = Parser::new(text);
    let kind = parser.kind(0)?;
    if parser.at_end() {
        Ok(kind)
    } else {
        Err(parser.error("the type ends here, but there is more"))
    }
}

/// The Arrow schema that files are written with. Every column is nullable.
pub fn to_arrow(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(arrow_fields(columns)))
}

fn arrow_fields(columns: &[Column]) -> Fields {
    columns
        .iter()
        .map(|column| ArrowField::new(&column.name, column.kind.to_arrow(), true))
        .collect()
}

fn add(
    columns: &mut Vec<Column>,
    name: String,
    start: usize,
    parser: &mut Parser,
    depth: usize,
) -> Result<(), SchemaError> {
    // Hive ignores case in names.
    if columns
        .iter()
        .any(|column| column.name.to_lowercase() == name.to_lowercase())
    {
        return Err(SchemaError {
            position: start + 1,
            message: format!("the name `{name}` is taken already (Hive ignores case)"),
        });
    }
    let kind = parser.kind(depth)?;
    columns.push(Column { name, kind });
    Ok(())
}

impl HiveType {
    /// The Arrow type that holds it; names of list and map parts as the Parquet format has them.
    pub fn to_arrow(&self) -> DataType {
        match self {
            HiveType::String | HiveType::Varchar(_) | HiveType::Char(_) => DataType::Utf8,
            HiveType::Binary => DataType::Binary,
            HiveType::Boolean => DataType::Boolean,
            HiveType::TinyInt => DataType::Int8,
            HiveType::SmallInt => DataType::Int16,
            HiveType::Int => DataType::Int32,
            HiveType::BigInt => DataType::Int64,
            HiveType::Float => DataType::Float32,
            HiveType::Double => DataType::Float64,
            HiveType::Decimal { precision, scale } => {
                DataType::Decimal128(*precision, *scale as i8)
            }
            HiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            HiveType::Date => DataType::Date32,
            HiveType::Array(item) => {
                DataType::List(Arc::new(ArrowField::new("element", item.to_arrow(), true)))
            }
            HiveType::Map(key, value) => DataType::Map(
                Arc::new(ArrowField::new(
                    "key_value",
                    DataType::Struct(map_fields(key, value)),
                    false,
                )),
                false,
            ),
            HiveType::Struct(fields) => DataType::Struct(arrow_fields(fields)),
        }
    }
}

/// The two columns of a map's entries.
pub(super) fn map_fields(key: &HiveType, value: &HiveType) -> Fields {
    Fields::from(vec![
        ArrowField::new("key", key.to_arrow(), false),
        ArrowField::new("value", value.to_arrow(), true),
    ])
}

/// Hive's own words, in lower case: what the metastore stores.
impl fmt::Display for HiveType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HiveType::String => f.write_str("string"),
            HiveType::Varchar(length) => write!(f, "varchar({length})"),
            HiveType::Char(length) => write!(f, "char({length})"),
            HiveType::Binary => f.write_str("binary"),
            HiveType::Boolean => f.write_str("boolean"),
            HiveType::TinyInt => f.write_str("tinyint"),
            HiveType::SmallInt => f.write_str("smallint"),
            HiveType::Int => f.write_str("int"),
            HiveType::BigInt => f.write_str("bigint"),
            HiveType::Float => f.write_str("float"),
            HiveType::Double => f.write_str("double"),
            HiveType::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            HiveType::Timestamp => f.write_str("timestamp"),
            HiveType::Date => f.write_str("date"),
            HiveType::Array(item) => write!(f, "array<{item}>"),
            HiveType::Map(key, value) => write!(f, "map<{key},{value}>"),
            HiveType::Struct(fields) => {
                f.write_str("struct<")?;
                for (index, field) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{}:{}", quoted(&field.name), field.kind)?;
                }
                f.write_str(">")
            }
        }
    }
}

/// `name type`, as in a column list.
impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", quoted(&self.name), self.kind)
    }
}

fn quoted(name: &str) -> String {
    if name.chars().all(is_name) {
        name.to_owned()
    } else {
        format!("`{name}`")
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A cursor over the characters of a text.
struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Parser {
        Parser {
            chars: text.chars().collect(),
            at: 0,
        }
    }

    fn error(&self, message: impl Into<String>) -> SchemaError {
        self.error_at(self.at, message)
    }

    fn error_at(&self, at: usize, message: impl Into<String>) -> SchemaError {
        SchemaError {
            position: at + 1,
            message: message.into(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_space(&mut self) -> usize {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.at
    }

    fn at_end(&mut self) -> bool {
        self.skip_space() == self.chars.len()
    }

    fn expect(&mut self, wanted: char) -> Result<(), SchemaError> {
        self.skip_space();
        if self.peek() == Some(wanted) {
            self.at += 1;
            return Ok(());
        }
        Err(match self.peek() {
            Some(found) => self.error(format!("expected `{wanted}`, found `{found}`")),
            None => self.error(format!("expected `{wanted}`, but the text ends")),
        })
    }

    fn found(&mut self, wanted: char) -> bool {
        self.skip_space();
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self) -> String {
        self.skip_space();
        let start = self.at;
        while self.peek().is_some_and(is_name) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    fn name(&mut self) -> Result<String, SchemaError> {
        if self.found('`') {
            let start = self.at;
            while self.peek().is_some_and(|c| c != '`') {
                self.at += 1;
            }
            let name: String = self.chars[start..self.at].iter().collect();
            self.expect('`')?;
            if name.is_empty() {
                return Err(self.error_at(start, "a name can't be empty"));
            }
            return Ok(name);
        }
        let name = self.word();
        if name.is_empty() {
            return Err(match self.peek() {
                Some(found) => self.error(format!(
                    "expected a column name, found `{found}` (a name with such characters goes in backticks)"
                )),
                None => self.error("expected a column name, but the text ends"),
            });
        }
        Ok(name)
    }

    fn number(&mut self, max: u32) -> Result<u32, SchemaError> {
        let start = self.skip_space();
        match self.word().parse::<u32>() {
            Ok(number) if number <= max => Ok(number),
            _ => Err(self.error_at(start, format!("expected a number from 0 to {max}"))),
        }
    }

    fn kind(&mut self, depth: usize) -> Result<HiveType, SchemaError> {
        let start = self.skip_space();
        if depth > MAX_DEPTH {
            return Err(self.error(format!("types nest deeper than {MAX_DEPTH} levels")));
        }
        let word = self.word().to_lowercase();
        let kind = match word.as_str() {
            "string" => HiveType::String,
            "varchar" => HiveType::Varchar(self.length(65_535)?),
            "char" => HiveType::Char(self.length(255)?),
            "binary" => HiveType::Binary,
            "boolean" => HiveType::Boolean,
            "tinyint" => HiveType::TinyInt,
            "smallint" => HiveType::SmallInt,
            "int" | "integer" => HiveType::Int,
            "bigint" => HiveType::BigInt,
            "float" => HiveType::Float,
            "double" => {
                let before = self.at;
                if !self.word().eq_ignore_ascii_case("precision") {
                    self.at = before;
                }
                HiveType::Double
            }
            "decimal" | "dec" | "numeric" => self.decimal()?,
            "timestamp" => HiveType::Timestamp,
            "date" => HiveType::Date,
            "array" => {
                self.expect('<')?;
                let item = self.kind(depth + 1)?;
                self.expect('>')?;
                HiveType::Array(Box::new(item))
            }
            "map" => self.map(depth)?,
            "struct" => self.structure(depth)?,
            "" => return Err(self.error(format!("expected a type: {TYPES}"))),
            other => {
                return Err(
                    self.error_at(start, format!("unknown type `{other}`; types are {TYPES}"))
                );
            }
        };
        Ok(kind)
    }

    fn length(&mut self, max: u32) -> Result<u32, SchemaError> {
        self.expect('(')?;
        let at = self.skip_space();
        let length = self.number(max)?;
        if length == 0 {
            return Err(self.error_at(at, "a length is 1 or more"));
        }
        self.expect(')')?;
        Ok(length)
    }

    fn decimal(&mut self) -> Result<HiveType, SchemaError> {
        let (mut precision, mut scale) = (10, 0);
        if self.found('(') {
            let at = self.skip_space();
            precision = self.number(38)?;
            if self.found(',') {
                scale = self.number(38)?;
            }
            self.expect(')')?;
            if precision == 0 || scale > precision {
                return Err(self.error_at(
                    at,
                    format!("decimal({precision},{scale}): the precision is 1 to 38, the scale 0 to the precision"),
                ));
            }
        }
        Ok(HiveType::Decimal {
            precision: precision as u8,
            scale: scale as u8,
        })
    }

    fn map(&mut self, depth: usize) -> Result<HiveType, SchemaError> {
        self.expect('<')?;
        let at = self.skip_space();
        let key = self.kind(depth + 1)?;
        if !matches!(
            key,
            HiveType::String
                | HiveType::TinyInt
                | HiveType::SmallInt
                | HiveType::Int
                | HiveType::BigInt
        ) {
            return Err(self.error_at(
                at,
                "keys of a map are string, tinyint, smallint, int or bigint",
            ));
        }
        self.expect(',')?;
        let value = self.kind(depth + 1)?;
        self.expect('>')?;
        Ok(HiveType::Map(Box::new(key), Box::new(value)))
    }

    fn structure(&mut self, depth: usize) -> Result<HiveType, SchemaError> {
        self.expect('<')?;
        let mut fields = Vec::new();
        loop {
            let start = self.skip_space();
            let name = self.name()?;
            self.expect(':')?;
            add(&mut fields, name, start, self, depth + 1)?;
            if self.found('>') {
                return Ok(HiveType::Struct(fields));
            }
            self.expect(',')?;
        }
    }
}

#[cfg(test)]
mod tests;
