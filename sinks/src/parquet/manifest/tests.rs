use super::*;

#[test]
fn a_manifest_is_small_and_reads_back() {
    let manifest = Manifest {
        files: vec![Closed {
            partition: "dt=2026-11-01/hour=10".to_owned(),
            name: "plays-w0-1-000001.parquet".to_owned(),
            rows: 12,
            bytes: 345,
            why: Why::OpenFiles,
            upload: Some(Parts {
                id: "u".to_owned(),
                parts: vec!["e1".to_owned(), "e2".to_owned()],
            }),
        }],
        source: Source {
            group: "g".to_owned(),
            partitions: vec![("t".to_owned(), 3)],
        },
    };
    let text = serde_json::to_string(&manifest).unwrap();
    assert_eq!(
        text,
        r#"{"files":[{"partition":"dt=2026-11-01/hour=10","name":"plays-w0-1-000001.parquet","rows":12,"bytes":345,"why":"open_files","upload":{"id":"u","parts":["e1","e2"]}}],"source":{"group":"g","partitions":[["t",3]]}}"#
    );
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
}

#[test]
fn locations_have_different_names() {
    assert_eq!(location_hash(""), "cbf29ce484222325");
    assert_ne!(location_hash("file:///a"), location_hash("file:///b"));
}
