//! The options of the registration in a Hive Metastore.

use keystone_config::{Default, Kind, OptionSpec, Problem, Section, Settings};

use super::client::{Addresses, Place};
use crate::kafka::client::without_credentials;

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "sink.hive.metastore.uri",
        kind: Kind::Checked {
            form: "a list of `thrift://host:port`",
            check: check_uris,
        },
        default: Default::Absent,
        secret: false,
        doc: "Hive Metastores in which the table and its partitions are registered; one that can't be reached, does not answer or fails to look the table up gives its turn to the next. Absent: nothing is registered. A metastore that is down delays registration, never delivery. Kerberos is not supported.",
        example: "thrift://metastore:9083",
    },
    OptionSpec {
        key: "sink.hive.database",
        kind: Kind::Checked {
            form: "letters, digits and `_`",
            check: check_name,
        },
        default: Default::Value("default"),
        secret: false,
        doc: "The database of the table. It must exist.",
        example: "",
    },
    OptionSpec {
        key: "sink.hive.table",
        kind: Kind::Checked {
            form: "letters, digits and `_`",
            check: check_name,
        },
        default: Default::Absent,
        secret: false,
        doc: "The table. It is created as an external table where it does not exist; where it does, its columns must be those of `sink.parquet.schema`, which may then be left out. Required with `sink.hive.metastore.uri`.",
        example: "plays",
    },
    OptionSpec {
        key: "sink.hive.location",
        kind: Kind::Checked {
            form: "a location without credentials",
            check: check_location,
        },
        default: Default::Derived("`<sink.parquet.location>`"),
        secret: false,
        doc: "The table's location as Hive sees it, where that differs from `sink.parquet.location`: `s3a://bucket/path` for `s3://bucket/path`.",
        example: "s3a://lake/plays",
    },
];

pub const SECTION: Section = Section {
    title: "Hive Metastore",
    when: Some(("sink.type", "parquet")),
    options: OPTIONS,
    passthrough: None,
};

pub(super) fn check_uris(text: &str) -> Result<(), String> {
    // As a whole: a password may have a comma.
    if text.contains('@') {
        return address(text).map(drop);
    }
    text.split(',').try_for_each(|uri| address(uri).map(drop))
}

pub(super) fn address(uri: &str) -> Result<String, String> {
    let uri = uri.trim();
    if uri.contains('@') {
        let shown = without_credentials(uri);
        return Err(format!(
            "`{shown}` holds credentials, and none are sent to a metastore"
        ));
    }
    let rest = uri
        .strip_prefix("thrift://")
        .ok_or_else(|| format!("`{uri}` does not begin with thrift://"))?
        .trim_end_matches('/');
    match rest.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(rest.to_owned())
        }
        Some(_) => Err(format!("`{uri}` has no valid host and port")),
        None if rest.is_empty() => Err(format!("`{uri}` names no host")),
        None => Ok(format!("{rest}:9083")),
    }
}

/// A user without a password is part of some names: `abfss://container@account/path`.
fn check_location(text: &str) -> Result<(), String> {
    let after = text.split_once("://").map_or(text, |(_, after)| after);
    let authority = after.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => Err(format!(
            "`{}` holds credentials, which belong into the configuration of those who read the table",
            without_credentials(text)
        )),
        _ => Ok(()),
    }
}

fn check_name(text: &str) -> Result<(), String> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(())
    } else {
        Err(format!("`{text}` is not a name in Hive"))
    }
}

/// Reads the options; `None` where no metastore is named.
pub fn place(settings: &Settings) -> Result<Option<Place>, Problem> {
    let Some(uris) = settings.text("sink.hive.metastore.uri") else {
        return Ok(None);
    };
    let addresses: Result<Vec<String>, String> = uris.split(',').map(address).collect();
    let addresses = addresses.map_err(|problem| {
        settings.problem(
            "sink.hive.metastore.uri",
            problem,
            "for example thrift://metastore:9083",
        )
    })?;
    let Some(table) = settings.text("sink.hive.table") else {
        return Err(settings.problem(
            "sink.hive.table",
            "is missing, but sink.hive.metastore.uri is set",
            "name the table to register",
        ));
    };
    let location = settings
        .text("sink.hive.location")
        .unwrap_or_else(|| settings.get("sink.parquet.location"));
    Ok(Some(Place {
        addresses: Addresses::new(addresses),
        // Hive knows lower case only.
        database: settings.get("sink.hive.database").to_lowercase(),
        table: table.to_lowercase(),
        location: location.trim_end_matches('/').to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::{check_location, check_uris};

    #[test]
    fn credentials_in_addresses_are_refused_and_not_repeated() {
        let uris = check_uris("thrift://a:9083, thrift://user:s3cret@b:9083").unwrap_err();
        let location = check_location("s3a://id:s3cret@lake/plays").unwrap_err();
        for (error, shown) in [(uris, "`…@b:9083`"), (location, "`…@lake/plays`")] {
            assert!(
                error.contains(shown) && !error.contains("s3cret"),
                "{error}"
            );
        }
        assert_eq!(check_location("abfss://lake@account/a:b"), Ok(()));
        assert_eq!(check_location("hdfs://name:8020/a@b"), Ok(()));
    }
}
