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

fn closed(name: &str) -> Closed {
    Closed {
        partition: "dt=1".to_owned(),
        name: name.to_owned(),
        rows: 1,
        bytes: 1,
        why: Why::OpenFiles,
        upload: None,
    }
}

/// Another program may empty a partition while files are written there.
#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_file_that_was_removed_is_not_committed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::Local {
        root: root.path().to_owned(),
    };
    let manifests = Manifests::new(store.clone(), "plays", "plays-w0-1".to_owned());
    let mut upload = store.create("dt=1", "a.parquet").await.unwrap();
    upload.append(b"rows".to_vec()).await.unwrap();
    std::fs::remove_dir_all(root.path().join("dt=1")).unwrap();
    upload.close().await.unwrap();
    let (files, source) = ([closed("a.parquet")], Source::default());
    let error = manifests.write(&files, &source).await.unwrap_err();
    assert_eq!(error.reason, "file_removed");
    assert!(error.detail.contains("dt=1"), "{error}");
    let left = std::fs::read_dir(root.path()).unwrap().count();
    assert_eq!(left, 0, "no manifest names it");
}

/// An empty mount point has no manifest: that does not mean that all is published.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_mounted_is_not_taken_for_one_where_all_is_published() {
    let parent = tempfile::tempdir().unwrap();
    let (root, away) = (parent.path().join("table"), parent.path().join("away"));
    let store = Store::Local { root: root.clone() };
    let manifests = Manifests::new(store.clone(), "plays", "plays-w0-1".to_owned());
    let mut upload = store.create("dt=1", "a.parquet").await.unwrap();
    upload.append(b"rows".to_vec()).await.unwrap();
    upload.close().await.unwrap();
    let source = Source::default();
    let name = manifests
        .write(&[closed("a.parquet")], &source)
        .await
        .unwrap();
    let stem = manifests.stem(&name).unwrap();

    std::fs::rename(&root, &away).unwrap();
    for is_there in [false, true] {
        if is_there {
            std::fs::create_dir(&root).unwrap();
        }
        let error = manifests.publish(stem).await.unwrap_err();
        assert_eq!(error.reason, "wrong_location");
        let directory = root.join("_keystone/plays");
        assert!(
            error.detail.contains(&*directory.to_string_lossy()),
            "{error}"
        );
        assert!(error.detail.contains("not mounted"), "{error}");
        // Whether it was prepared can't be told either.
        manifests.read(stem).await.unwrap_err();
    }

    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    let published = manifests.publish(stem).await.unwrap();
    assert_eq!(published, [(closed("a.parquet"), Publication::Now)]);
    assert_eq!(std::fs::read(root.join("dt=1/a.parquet")).unwrap(), b"rows");
    // The manifest was the last one; its directory stays, and tells that all is published.
    assert!(manifests.publish(stem).await.unwrap().is_empty());
    assert_eq!(manifests.read(stem).await.unwrap(), None);
}

/// A bucket without this object, behind a server that may answer 404 to everything, with a code of S3 or as others do.
async fn bucket(can_list: bool, missing: &'static str) -> Store {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    const LISTING: &str = "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut lines = BufReader::new(stream).lines();
            let Ok(Some(request)) = lines.next_line().await else {
                continue;
            };
            while let Ok(Some(line)) = lines.next_line().await {
                if line.is_empty() {
                    break;
                }
            }
            let (status, body) = match can_list && request.contains("list-type=2") {
                true => ("200 OK", LISTING),
                false => ("404 Not Found", missing),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let mut stream = lines.into_inner();
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let options = object_store::ClientOptions::new().with_allow_http(true);
    let store = object_store::aws::AmazonS3Builder::new()
        .with_bucket_name("b")
        .with_endpoint(endpoint)
        .with_access_key_id("id")
        .with_secret_access_key("secret")
        .with_client_options(options.clone())
        .build();
    let store = std::sync::Arc::new(store.unwrap());
    let client = object_store::client::HttpConnector::connect(&crate::parquet::s3::Steps, &options);
    Store::S3 {
        uploads: crate::parquet::uploads::Uploads::new(
            store.clone(),
            client.unwrap(),
            "us-east-1".to_owned(),
        ),
        impatient: store.clone(),
        store,
        bucket: "b".to_owned(),
        prefix: "table".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_answers_404_to_everything_is_not_taken_for_the_bucket() {
    let publish = async |can_list, missing| {
        let store = bucket(can_list, missing).await;
        let manifests = Manifests::new(store, "plays", "plays-w0-1".to_owned());
        manifests.publish("plays-w0-1-000000").await
    };
    let code = "<Error><Code>NoSuchKey</Code></Error>";
    assert_eq!(publish(true, code).await.unwrap(), []);
    let error = publish(false, code).await.unwrap_err();
    assert_eq!(error.reason, "wrong_location");
    assert!(
        error.detail.contains("listing") && error.detail.contains("_keystone/plays"),
        "{error}"
    );
    for can_list in [true, false] {
        let error = publish(can_list, "nothing here").await.unwrap_err();
        assert_eq!(error.reason, "s3_not_found");
        assert!(error.detail.contains("_keystone/plays"), "{error}");
    }
}
