//! Pages and files that are written from the tables in the code. The test writes what is stale and fails once, so that it is looked at
//! and committed.

use std::path::{Path, PathBuf};

use keystone::{metrics, options};
use keystone_config::{Sources, flaws, render, resolve};

fn in_project(path: impl AsRef<Path>) -> PathBuf {
    let project = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    project.join(path)
}

fn ensure_file_contents(path: &str, contents: &str) {
    let path = in_project(path);
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    if current != contents {
        std::fs::write(&path, contents).expect("the page can be written");
        panic!(
            "{} was stale and has been written again: look at it and commit it",
            path.display()
        );
    }
}

#[test]
fn the_options_table_has_no_flaws() {
    assert_eq!(flaws(&options::table()), Vec::<String>::new());
}

#[test]
fn the_options_page_is_current() {
    ensure_file_contents("docs/options.md", &render::markdown(&options::table()));
}

#[test]
fn the_metrics_page_is_current() {
    ensure_file_contents("docs/metrics.md", &metrics::markdown());
}

#[test]
fn the_sample_file_is_current_and_valid() {
    let sample = render::sample(&options::table());
    let sources = Sources {
        defaults: None,
        file: Some(("route.sample.properties".to_owned(), sample.clone())),
        env: Vec::new(),
        sets: Vec::new(),
    };
    if let Err(problems) = resolve(&options::table(), &sources) {
        panic!("the sample file has problems:\n{problems}");
    }
    ensure_file_contents("examples/route.sample.properties", &sample);
}

/// Who looks for a part of the worker finds it in the tables of the pages.
#[test]
fn every_module_of_the_worker_stands_in_the_maps() {
    let read = |path: &str| std::fs::read_to_string(in_project(path)).expect("it can be read");
    let (page, root) = (read("docs/architecture.md"), read("router/src/lib.rs"));
    let mut count = 0;
    for line in root.lines() {
        let Some(module) = line.strip_prefix("pub mod ") else {
            continue;
        };
        let module = module.trim_end_matches(';');
        assert!(root.contains(&format!("[`{module}`]")), "lib.rs: {module}");
        let is_there = [format!("`{module}.rs`"), format!("`{module}/`")];
        assert!(
            is_there.iter().any(|name| page.contains(name)),
            "docs/architecture.md: {module}"
        );
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// Cargo refuses to build anything of a workspace of which a member is missing.
#[test]
fn the_image_is_built_from_all_members_of_the_workspace() {
    let read = |path| std::fs::read_to_string(in_project(path)).expect("it can be read");
    let (manifest, ignored) = (read("Cargo.toml"), read(".dockerignore"));
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .expect("the workspace has members");
    let mut count = 0;
    for member in members.split('"').skip(1).step_by(2) {
        let directory = member.split('/').next().unwrap_or(member);
        let line = format!("!{directory}");
        assert!(ignored.lines().any(|known| known == line), "{member}");
        count += 1;
    }
    assert!(count >= 5, "{members}");
}

/// Rules and graphs of metrics that are not there never fire and show nothing.
#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let read = |path| std::fs::read_to_string(in_project(path)).expect("it can be read");
    let page = metrics::markdown();
    for file in ["deploy/alerts.yaml", "deploy/dashboard.json"] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_metric = |word: &&str| word.starts_with("keystone_") || word.starts_with("process_");
        let names: Vec<&str> = words.filter(is_metric).collect();
        assert!(names.len() > 10, "{file}");
        for name in names {
            let parts = ["_bucket", "_count"].into_iter();
            let whole = parts.filter_map(|part| name.strip_suffix(part)).next();
            let name = whole.unwrap_or(name);
            assert!(page.contains(&format!("`{name}`")), "{file}: {name}");
        }
    }
}

#[test]
fn each_alert_fires_for_what_it_is_made_for_alone() {
    // `tests/setup.sh test` brings it where there is none.
    let own = in_project(".servers/promtool");
    let promtool = if own.exists() { own } else { "promtool".into() };
    let output = std::process::Command::new(promtool)
        .args(["test", "rules", "alerts.test.yaml"])
        .current_dir(in_project("deploy"))
        .output()
        .unwrap_or_else(|error| panic!("start promtool: {error}; run `make setup-test`"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn the_route_of_the_kubernetes_example_is_valid() {
    let manifest = std::fs::read_to_string(in_project("deploy/kubernetes.yaml")).expect("a file");
    let lines = manifest
        .lines()
        .skip_while(|line| !line.ends_with("route.properties: |"));
    let lines = lines.skip(1).take_while(|line| line.starts_with("    "));
    let text: String = lines.flat_map(|line| [line.trim(), "\n"]).collect();
    let sources = Sources {
        defaults: None,
        file: Some(("route.properties".to_owned(), text)),
        env: Vec::new(),
        sets: Vec::new(),
    };
    // The secret is a file of the cluster.
    let (route, absent) = keystone::route::load_elsewhere(&sources);
    let route = route.unwrap_or_else(|problems| panic!("{problems}"));
    // As its CPU request, not as many as this machine or a node has processors.
    assert_eq!(route.settings.maybe_count("delivery.lanes"), Some(1));
    let absent: Vec<_> = absent.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(absent, ["sink.elasticsearch.api.key"]);
}
