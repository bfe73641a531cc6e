//! Builds the floors, C programs, against the librdkafka that the release build of the worker carries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keystone_tests::{Doing, Error, Result, process};

const COMPILE: Duration = Duration::from_secs(120);

/// Compiles `bench/floor/<name>.c` into `directory`; `release` is the target directory of the release profile.
pub(crate) fn build(name: &str, root: &Path, release: &Path, directory: &Path) -> Result<PathBuf> {
    let code = format!("bench/floor/{name}.c");
    let build = release.join("build");
    let source = output(&build, "rdkafka-sys-", "src/librdkafka.a")?;
    let program = directory.join(name);
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-o"]).arg(&program);
    cc.arg(root.join(&code));
    cc.arg("-isystem").arg(source.parent().unwrap_or(&build));
    cc.arg(&source);
    cc.arg(output(&build, "zstd-sys-", "libzstd.a")?);
    for library in ["libssl.a", "libcrypto.a"] {
        let path = format!("openssl-build/install/lib/{library}");
        cc.arg(output(&build, "openssl-sys-", &path)?);
    }
    cc.args(["-lz", "-lm", "-ldl", "-lpthread", "-lrt"]);
    process::run("cc", &mut cc, COMPILE).doing(format!("compiling {code}"))?;
    Ok(program)
}

/// The newest file `<prefix>*/out/<path>`: a package may have been built more than once.
fn output(build: &Path, prefix: &str, path: &str) -> Result<PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(build).doing(format!("listing {}", build.display()))? {
        let entry = entry?;
        let file = entry.path().join("out").join(path);
        if entry.file_name().to_string_lossy().starts_with(prefix)
            && let Ok(found) = std::fs::metadata(&file)
        {
            newest = newest.max(Some((found.modified()?, file)));
        }
    }
    newest.map(|(_, file)| file).ok_or_else(|| {
        Error::new(format!(
            "no {prefix}*/out/{path} in {}: build the worker first, with `cargo build --release -p keystone`",
            build.display()
        ))
    })
}
