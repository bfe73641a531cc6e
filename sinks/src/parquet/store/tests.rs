use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_hidden_until_it_is_published() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::Local {
        root: root.path().join("new/table"),
    };
    let mut upload = store.create("dt=1/h=2", "a.parquet").await.unwrap();
    upload.append(b"abc".to_vec()).await.unwrap();
    let directory = root.path().join("new/table/dt=1/h=2");
    assert!(directory.join(".a.parquet.inprogress").exists());
    assert!(!directory.join("a.parquet").exists());
    assert!(store.partitions(2, 10).await.unwrap().is_empty());
    upload.publish().await.unwrap();
    assert_eq!(std::fs::read(directory.join("a.parquet")).unwrap(), b"abc");
    assert!(!directory.join(".a.parquet.inprogress").exists());
    assert_eq!(store.partitions(2, 10).await.unwrap(), ["dt=1/h=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_partition_is_the_longest_that_can_be_written() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().to_owned();
    let name = "a.parquet";
    let bytes = root.as_os_str().len();
    let store = Store::Local { root };
    let longest = store.longest_partition(name.len());
    assert!(longest < LONGEST_PATH - bytes);
    let partition = |bytes: usize| {
        let (whole, rest) = (bytes / 100, bytes % 100);
        format!(
            "{}{}",
            format!("{}/", "d".repeat(99)).repeat(whole),
            "e".repeat(rest)
        )
    };
    assert_eq!(partition(longest).len(), longest);
    let mut upload = store.create(&partition(longest), name).await.unwrap();
    upload.publish().await.unwrap();
    assert!(store.create(&partition(longest + 1), name).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_file_is_never_replaced() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::Local {
        root: root.path().to_owned(),
    };
    std::fs::write(root.path().join("a.parquet"), b"old").unwrap();
    let mut upload = store.create("", "a.parquet").await.unwrap();
    let error = upload.publish().await.unwrap_err();
    assert!(error.detail.contains("exists already"), "{error}");
    upload.abandon().await;
    assert_eq!(
        std::fs::read(root.path().join("a.parquet")).unwrap(),
        b"old"
    );
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_partitions_are_listed_first() {
    let root = tempfile::tempdir().unwrap();
    for path in [
        "dt=1/h=1",
        "dt=3/h=1",
        "dt=3/h=2",
        "dt=2/h=9",
        ".hidden=1/h=1",
        "dt=4/h=1",
    ] {
        let directory = root.path().join(path);
        std::fs::create_dir_all(&directory).unwrap();
        let name = if path == "dt=4/h=1" {
            ".a.parquet.inprogress"
        } else {
            "a.parquet"
        };
        std::fs::write(directory.join(name), b"").unwrap();
    }
    let store = Store::Local {
        root: root.path().to_owned(),
    };
    assert_eq!(
        store.partitions(2, 4).await.unwrap(),
        ["dt=3/h=2", "dt=3/h=1", "dt=2/h=9"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_is_a_file_is_explained() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("table");
    std::fs::write(&path, b"").unwrap();
    let store = Store::Local { root: path.clone() };
    let error = store.check("probe").await.unwrap_err();
    assert!(error.detail.contains(&*path.to_string_lossy()), "{error}");
}
