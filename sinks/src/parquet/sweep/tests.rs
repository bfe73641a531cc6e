use super::*;

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// As if it had been written so long ago.
fn age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

fn old(root: &Path, name: &str, content: &str) -> PathBuf {
    let path = root.join(name);
    write(&path, content);
    age(&path, AGE + Duration::from_secs(1));
    path
}

fn manifest(file: &str) -> String {
    format!(
        r#"{{"files":[{{"partition":"dt=1","name":"{file}","rows":1,"bytes":1,"why":"age"}}],"source":{{"group":"g","partitions":[["t",0]]}}}}"#
    )
}

#[test]
fn orphans_are_removed_and_only_orphans() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let alive = Alive::new(root, "plays-w1-a").unwrap();
    let lock = alive.path.clone();
    age(&lock, AGE * 2);
    // As a process that was killed leaves it.
    let gone = old(root, "_keystone/locks/plays-w0-1.lock", "");
    let orphans = [
        old(root, "dt=1/.plays-w0-1-000000.parquet.inprogress", "x"),
        old(
            root,
            "dt=1/hour=2/.plays-w0-1-000001.parquet.inprogress",
            "x",
        ),
        old(root, ".other-w9-1-000001.parquet.inprogress", "x"),
        old(
            root,
            "_keystone/plays/.plays-w0-1-000009.json.inprogress",
            "{",
        ),
    ];
    let kept = [
        old(
            root,
            "dt=1/.plays-w1-a-000000.parquet.inprogress",
            "of one that lives",
        ),
        old(root, "dt=1/.plays-w0-1-000002.parquet.inprogress", "listed"),
        old(
            root,
            "_keystone/plays/plays-w0-1-000000.json",
            &manifest("plays-w0-1-000002.parquet"),
        ),
        old(
            root,
            "dt=1/.plays-w0-1-000003.parquet.inprogress",
            "listed by another route",
        ),
        old(
            root,
            "_keystone/x/x-w0-1-000000.json",
            &manifest("plays-w0-1-000003.parquet"),
        ),
        old(root, "dt=1/plays-w0-1-000004.parquet", "visible"),
        old(root, "dt=1/.somebody.inprogress", "of another program"),
        old(root, "dt=1/.plays-check.inprogress", "not a file of rows"),
        old(
            root,
            "of_another_table/dt=1/.plays-w0-1-000007.parquet.inprogress",
            "its locks are elsewhere",
        ),
        old(
            root,
            "dt=1/.plays-w0-1-000005.parquet.tmp",
            "of another program",
        ),
    ];
    let young = root.join("dt=1/.plays-w0-1-000006.parquet.inprogress");
    write(&young, "young");
    age(&young, AGE - Duration::from_secs(60));
    assert_eq!(sweep(root), orphans.len() as u64);
    for path in orphans.iter().chain([&gone]) {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in kept.iter().chain([&young, &lock]) {
        assert!(path.exists(), "{}", path.display());
    }
    drop(alive);
    assert!(!lock.exists());
    assert_eq!(sweep(root), 1, "the one that lived is gone");
}

#[test]
fn nothing_is_removed_where_a_manifest_cannot_be_read() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    old(root, "_keystone/plays/plays-w0-1-000000.json", "{");
    let hidden = old(root, "dt=1/.plays-w0-1-000000.parquet.inprogress", "x");
    assert_eq!(sweep(root), 0);
    assert!(hidden.exists());
}

#[test]
fn manifests_of_workers_that_are_gone_are_suspects() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let _alive = Alive::new(root, "plays-w1-a").unwrap();
    let of = |name: &str| manifest(&format!("{name}.parquet"));
    old(root, "_keystone/plays/plays-w0-1-000000.json", &of("a"));
    old(root, "_keystone/plays/plays-w1-a-000000.json", &of("b"));
    old(
        root,
        "_keystone/plays/.plays-w0-1-000001.json.inprogress",
        &of("c"),
    );
    old(root, "_keystone/other/other-w0-1-000000.json", &of("d"));
    write(
        &root.join("_keystone/plays/plays-w0-1-000002.json"),
        &of("e"),
    );
    let found = suspects(root, "_keystone/plays");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].stem, "plays-w0-1-000000");
    assert_eq!(found[0].manifest.source.partitions, [("t".to_owned(), 0)]);
}

#[test]
fn two_processes_of_one_name_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let _alive = Alive::new(root.path(), "plays-w1-a").unwrap();
    let error = Alive::new(root.path(), "plays-w1-a").unwrap_err();
    assert!(
        error.detail.contains("locked by another process"),
        "{error}"
    );
}

#[test]
fn only_files_of_ours_are_known_by_their_names() {
    for ours in [
        "plays-w1-19abcdef012-000000.parquet",
        "my-plays-host-7-19abcdef012-1234567.parquet",
    ] {
        assert!(is_file_name(ours), "{ours}");
    }
    for other in [
        "part-00000-19abcdef012-000000.snappy.parquet",
        "part-00000-6f1e.parquet",
        "w1-19abcdef012-000000.parquet",
        "plays-w1-19abcdef012-00000.parquet",
        "plays-w1-19abcdefg12-000000.parquet",
        "plays-w1-19abcdef012-000000",
    ] {
        assert!(!is_file_name(other), "{other}");
    }
}
