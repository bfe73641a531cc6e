//! The table as the metastore has it, against the table as the route wants it.

use super::client::{self, CallError, Client, Found, Place};
use crate::parquet::partition::Partitioning;
use crate::parquet::schema::{Column, HiveType, parse_type};

/// The columns of a table that exists, for a route without `sink.parquet.schema`.
pub async fn table_columns(place: &Place) -> Result<(Vec<Column>, Vec<String>), ColumnsError> {
    let client = Client::connect(&place.addresses).await?;
    let found = client.table(place).await?.ok_or_else(|| {
        ColumnsError::Unusable(format!(
            "the table {}.{} does not exist, and without sink.parquet.schema it can't be created: set sink.parquet.schema, or create the table",
            place.database, place.table
        ))
    })?;
    let mut columns = Vec::with_capacity(found.columns.len());
    for (name, kind) in found.columns {
        let kind = parse_type(&kind).map_err(|error| {
            ColumnsError::Unusable(format!(
                "column {name} of table {}.{} has the type {kind}, which can't be written: {error}",
                place.database, place.table
            ))
        })?;
        columns.push(Column { name, kind });
    }
    let keys = found.partition_keys.into_iter().map(|(name, _)| name);
    Ok((columns, keys.collect()))
}

impl Place {
    pub(super) fn no_database(&self) -> String {
        format!(
            "the metastore has no database {}: create it, or change sink.hive.database",
            self.database
        )
    }
}

/// Why there are no columns.
#[derive(Debug, thiserror::Error)]
pub enum ColumnsError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{0}")]
    Unusable(String),
}

/// What is wrong with a table that exists, naming the column; empty where it fits.
///
/// `location` is where Hive is to find the files.
pub fn differences(
    found: &Found,
    columns: &[Column],
    partitioning: &Partitioning,
    location: &str,
) -> Vec<String> {
    let mut problems = Vec::new();
    let wanted = client::hive_columns(columns);
    for (name, kind) in &wanted {
        let there = found.columns.iter().find(|(other, _)| other == name);
        match there {
            None => problems.push(format!("column {name} is not in the table")),
            Some((_, other)) if !same_type(kind, other) => problems.push(format!(
                "column {name} is {other} in the table, but {kind} in sink.parquet.schema"
            )),
            Some(_) => {}
        }
    }
    let there: Vec<String> = found
        .partition_keys
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    let wanted: Vec<String> = partitioning.names().map(str::to_lowercase).collect();
    if there != wanted {
        problems.push(format!(
            "the table is partitioned by ({}), but sink.parquet.partition.by gives ({})",
            there.join(", "),
            wanted.join(", ")
        ));
    } else {
        let typed = found.partition_keys.iter().enumerate();
        let unfit = typed.filter(|(index, (_, kind))| !partitioning.always_gives(*index, kind));
        problems.extend(unfit.map(|(_, (name, kind))| no_such_value(name, kind)));
    }
    // Partitions are registered with locations of their own.
    if there.is_empty() && comparable(&found.location) != comparable(location) {
        problems.push(format!(
            "the files of the table are at {}, and those of the route at {location}, where no reader of the table looks: correct sink.parquet.location, or sink.hive.location where Hive sees the same place under another name, or the table (ALTER TABLE … SET LOCATION)",
            found.location
        ));
    }
    if !found.input_format.contains("Parquet") {
        problems.push(format!(
            "the table's input format is {}, not Parquet",
            found.input_format
        ));
    }
    problems
}

/// A location without what may differ in the name of one place: the client's protocol of a bucket, the number of slashes, one at the end.
fn comparable(location: &str) -> String {
    let (scheme, rest) = location.split_once(':').unwrap_or(("", location));
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "s3a" | "s3n" => "s3".to_owned(),
        other => other.to_owned(),
    };
    let parts = rest.split('/').filter(|part| !part.is_empty());
    format!("{scheme}:{}", parts.collect::<Vec<_>>().join("/"))
}

/// A partition is registered by its text, whatever that is: engines fail at one that the type does not hold, or read null.
fn no_such_value(name: &str, kind: &str) -> String {
    let instead = match parse_type(kind) {
        Ok(HiveType::Date) => format!(", or make it of a time, as `{name}={{ts:%Y-%m-%d}}` does"),
        Ok(HiveType::TinyInt | HiveType::SmallInt | HiveType::Int | HiveType::BigInt) => format!(
            ", or make it of a part of a time without leading zeros, as `{name}={{ts:%-H}}` does (the hour) or `{{ts:%Y}}`"
        ),
        _ => String::new(),
    };
    format!(
        "partition column {name} is {kind} in the table, and what sink.parquet.partition.by gives for it may be none: declare it as string (ALTER TABLE … PARTITION COLUMN ({name} string)){instead}"
    )
}

/// The same type, however it is written.
fn same_type(one: &str, other: &str) -> bool {
    match (parse_type(one), parse_type(other)) {
        (Ok(one), Ok(other)) => one.to_string().to_lowercase() == other.to_string().to_lowercase(),
        _ => one == other,
    }
}
