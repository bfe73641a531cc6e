use super::client::Found;
use super::options::{address, check_uris};
use super::*;
use crate::parquet::schema::parse_columns;

fn found(columns: &[(&str, &str)], keys: &[&str]) -> Found {
    let own = |(name, kind): &(&str, &str)| ((*name).to_owned(), (*kind).to_owned());
    Found {
        columns: columns.iter().map(own).collect(),
        partition_keys: keys
            .iter()
            .map(|key| ((*key).to_owned(), "string".to_owned()))
            .collect(),
        location: "file:/t".to_owned(),
        input_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat".to_owned(),
    }
}

#[test]
fn a_table_that_does_not_fit_is_explained_by_column() {
    let columns = parse_columns("Id string, n bigint, s struct<A:int>").unwrap();
    let keys = ["dt".to_owned()];
    let fits = found(
        &[
            ("n", "bigint"),
            ("id", "string"),
            ("s", "struct<a:int>"),
            ("more", "int"),
        ],
        &["dt"],
    );
    assert_eq!(differences(&fits, &columns, &keys), Vec::<String>::new());
    let other = found(&[("id", "int"), ("s", "struct<a:int>")], &["hour"]);
    assert_eq!(
        differences(&other, &columns, &keys),
        [
            "column id is int in the table, but string in sink.parquet.schema",
            "column n is not in the table",
            "the table is partitioned by (hour), but sink.parquet.partition.by gives (dt)",
        ]
    );
}

#[test]
fn addresses_are_read_and_mistakes_named() {
    assert_eq!(address("thrift://h:1234").unwrap(), "h:1234");
    assert_eq!(address(" thrift://h/ ").unwrap(), "h:9083");
    for bad in [
        "h:9083",
        "thrift://",
        "thrift://h:x",
        "thrift://h:0",
        "http://h:1",
    ] {
        assert!(address(bad).is_err(), "{bad}");
    }
    assert!(check_uris("thrift://a:1, thrift://b:2").is_ok());
    assert!(check_uris("thrift://a:1,").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metastore_that_is_down_is_a_problem_and_holds_nothing_up() {
    // A port that nothing listens on: bound, then given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let place = Place {
        addresses: vec![format!("127.0.0.1:{port}")],
        database: "default".to_owned(),
        table: "t".to_owned(),
        location: "file:///t".to_owned(),
    };
    let root = tempfile::tempdir().unwrap();
    let store = Store::Local {
        root: root.path().to_owned(),
    };
    let partitioning = crate::parquet::partition::Partitioning::parse("dt={ts:%Y}").unwrap();
    let columns = parse_columns("id string").unwrap();
    let layout = Arc::new(crate::parquet::rows::Layout::new(columns, partitioning));
    let hive = Hive::new(place, store);
    assert!(matches!(
        hive.check(&layout).await,
        Err(CheckError::Unreachable(_))
    ));
    hive.start(&layout);
    hive.published("dt=2026");
    hive.published("dt=2026");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while hive.problems().is_none() {
        assert!(std::time::Instant::now() < deadline, "no problem told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let problem = hive.problems().unwrap();
    assert!(problem.contains(&format!("127.0.0.1:{port}")), "{problem}");
    assert!(problem.contains("1 partition(s) wait"), "{problem}");
    assert!(!hive.idle());
}
