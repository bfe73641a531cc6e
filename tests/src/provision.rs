//! Downloads the servers, once, by Maven with its own settings.
//!
//! Each server is unpacked into `.servers` of the workspace, or where `KEYSTONE_TEST_SERVERS` says. A lock file lets one process at a time
//! install; the others wait and find the work done. A half-unpacked server is never seen: it is made under a temporary name and renamed.
//! A changed recipe (its pom is kept beside the files) installs anew.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::{Doing, Error, Result, process};

/// For one server's artifacts over a slow line.
const DOWNLOAD: Duration = Duration::from_secs(1200);
const UNPACK: Duration = Duration::from_secs(300);
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// Not 4.3.0 to 4.4.0: their coordinator may leave a transaction open for ever when the only broker shuts down (KAFKA-20734).
const KAFKA: Recipe = Recipe {
    name: "kafka-4.2.2",
    dependencies: r#"
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.2.2</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.3</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.25.3</version></dependency>"#,
    unpack: |_| Ok(()),
};

const ELASTICSEARCH: Recipe = Recipe {
    name: "elasticsearch-8.19.21",
    dependencies: r#"
<dependency><groupId>org.elasticsearch.distribution.integ-test-zip</groupId><artifactId>elasticsearch</artifactId><version>8.19.21</version><type>zip</type>
<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>"#,
    unpack: unpack_elasticsearch,
};

/// `hadoop-client-*` replace the metastore's own, older Hadoop; without `hadoop-hdfs` each `create_table` dies. The schema scripts are in
/// the tarball only.
const METASTORE: Recipe = Recipe {
    name: "hive-metastore-4.0.1",
    dependencies: r#"
<dependency><groupId>org.apache.hive</groupId><artifactId>hive-standalone-metastore-server</artifactId><version>4.0.1</version><exclusions>
<exclusion><groupId>jdk.tools</groupId><artifactId>jdk.tools</artifactId></exclusion>
<exclusion><groupId>log4j</groupId><artifactId>log4j</artifactId></exclusion>
<exclusion><groupId>org.slf4j</groupId><artifactId>slf4j-log4j12</artifactId></exclusion>
</exclusions></dependency>
<dependency><groupId>org.apache.hive</groupId><artifactId>hive-standalone-metastore-server</artifactId><version>4.0.1</version><type>tar.gz</type><classifier>bin</classifier>
<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>
<dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-client-api</artifactId><version>3.3.6</version></dependency>
<dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-client-runtime</artifactId><version>3.3.6</version></dependency>
<dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-hdfs</artifactId><version>3.3.6</version>
<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>"#,
    unpack: unpack_metastore,
};

const S3: Recipe = Recipe {
    name: "s3proxy-2.6.0",
    dependencies: r#"
<dependency><groupId>org.gaul</groupId><artifactId>s3proxy</artifactId><version>2.6.0</version></dependency>"#,
    unpack: |_| Ok(()),
};

/// What Maven downloads for a server, and what is done with it then.
pub struct Recipe {
    /// With the version: the name of the directory.
    pub name: &'static str,
    /// The `<dependency>` elements of a pom.
    pub dependencies: &'static str,
    /// Is given the directory with everything in `lib`.
    pub unpack: fn(&Path) -> Result<()>,
}

/// The directory of the unpacked server; jars are in `lib`.
pub fn kafka() -> Result<PathBuf> {
    installed(&KAFKA)
}

/// The directory with `bin`, `config`, `modules`.
pub fn elasticsearch() -> Result<PathBuf> {
    Ok(installed(&ELASTICSEARCH)?.join("home"))
}

/// The directory; jars are in `lib`, the schema scripts in `home/scripts`.
pub fn metastore() -> Result<PathBuf> {
    installed(&METASTORE)
}

/// The directory; jars are in `lib`.
pub fn s3() -> Result<PathBuf> {
    installed(&S3)
}

fn unpack_elasticsearch(at: &Path) -> Result<()> {
    let zip = at.join("lib/elasticsearch-8.19.21.zip");
    process::run(
        "unzip",
        Command::new("unzip").arg("-q").arg(&zip).arg("-d").arg(at),
        UNPACK,
    )
    .doing("unpacking Elasticsearch (`make setup-test` installs unzip)")?;
    std::fs::rename(at.join("elasticsearch-8.19.21"), at.join("home"))?;
    std::fs::remove_dir_all(at.join("lib"))?;
    for program in std::fs::read_dir(at.join("home/bin"))? {
        std::fs::set_permissions(program?.path(), PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

fn unpack_metastore(at: &Path) -> Result<()> {
    let home = at.join("home");
    let tarball = at.join("lib/hive-standalone-metastore-server-4.0.1-bin.tar.gz");
    std::fs::create_dir(&home)?;
    let mut tar = Command::new("tar");
    tar.arg("xzf").arg(&tarball).arg("-C").arg(&home).args([
        "--strip-components=1",
        "apache-hive-metastore-4.0.1-bin/scripts",
    ]);
    process::run("tar", &mut tar, UNPACK)?;
    std::fs::remove_file(tarball)?;
    for jar in std::fs::read_dir(at.join("lib"))? {
        let jar = jar?;
        let name = jar.file_name().into_string().unwrap_or_default();
        if name.starts_with("hadoop-") && name.ends_with("-2.6.0.jar") {
            std::fs::remove_file(jar.path())?;
        }
    }
    Ok(())
}

/// Where servers are kept.
fn cache() -> PathBuf {
    match std::env::var_os("KEYSTONE_TEST_SERVERS") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the crate lies in the workspace")
            .join(".servers"),
    }
}

/// The directory of what a recipe brings, downloaded where it is not there yet; jars are in `lib`.
pub fn installed(recipe: &Recipe) -> Result<PathBuf> {
    // File locks hold between processes; threads of this one take turns here.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let cache = cache();
    std::fs::create_dir_all(&cache).doing(format!("making the directory {}", cache.display()))?;
    // Programs that run as another user must not need its working directory.
    let cache = cache.canonicalize()?;
    let target = cache.join(recipe.name);
    if is_installed(recipe, &target) {
        return Ok(target);
    }
    let lock = File::create(cache.join(format!("{}.lock", recipe.name)))?;
    lock.lock()
        .doing("waiting for another process that installs the same server")?;
    if !is_installed(recipe, &target) {
        let start = Instant::now();
        eprintln!("installing {} into {} (once)", recipe.name, cache.display());
        install(recipe, &cache, &target).doing(format!("installing {}", recipe.name))?;
        eprintln!(
            "installed {} in {:.1} s",
            recipe.name,
            start.elapsed().as_secs_f64()
        );
    }
    Ok(target)
}

fn is_installed(recipe: &Recipe, target: &Path) -> bool {
    std::fs::read_to_string(target.join("pom.xml")).is_ok_and(|found| found == pom(recipe))
}

fn install(recipe: &Recipe, cache: &Path, target: &Path) -> Result<()> {
    let temporary = tempfile::Builder::new()
        .prefix(&format!(".{}-", recipe.name))
        .tempdir_in(cache)?;
    let at = temporary.path();
    // Elasticsearch runs as another user.
    std::fs::set_permissions(at, PermissionsExt::from_mode(0o755))?;
    std::fs::write(at.join("pom.xml"), pom(recipe))?;
    let mut maven = Command::new("mvn");
    maven
        .args([
            "--batch-mode",
            "--quiet",
            "--no-transfer-progress",
            "--file",
        ])
        .arg(at.join("pom.xml"));
    maven
        .arg(COPY)
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", at.join("lib").display()));
    maven.env("JAVA_HOME", java_home()?);
    process::run("mvn", &mut maven, DOWNLOAD)
        .doing("downloading with Maven (`make setup-test` installs it)")?;
    (recipe.unpack)(at)?;
    if target.exists() {
        std::fs::remove_dir_all(target)?;
    }
    std::fs::rename(temporary.keep(), target)?;
    Ok(())
}

fn pom(recipe: &Recipe) -> String {
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n<modelVersion>4.0.0</modelVersion>\n\
         <groupId>keystone.tests</groupId><artifactId>{}</artifactId><version>1</version><packaging>pom</packaging>\n\
         <dependencies>{}\n</dependencies>\n</project>\n",
        recipe.name, recipe.dependencies
    )
}

/// A Java home that all the servers run on: 17 to 22. (Kafka 4 and Elasticsearch 8 need 17; Hadoop's login fails from 24 on.)
pub fn java_home() -> Result<PathBuf> {
    static FOUND: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| candidates().into_iter().find(|home| fits(home)));
    FOUND.clone().ok_or(Error::new(
        "no Java from 17 to 22 found in JAVA_HOME, PATH or /usr/lib/jvm; `make setup-test` installs one",
    ))
}

/// The `java` program of [`java_home`].
pub fn java() -> Result<PathBuf> {
    Ok(java_home()?.join("bin/java"))
}

fn candidates() -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = std::env::var_os("JAVA_HOME")
        .into_iter()
        .map(PathBuf::from)
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs =
        std::env::split_paths(&path).filter_map(|folder| folder.join("java").canonicalize().ok());
    homes.extend(programs.filter_map(|program| Some(program.parent()?.parent()?.to_owned())));
    let mut installed: Vec<PathBuf> = std::fs::read_dir("/usr/lib/jvm")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    installed.sort();
    homes.extend(installed);
    homes
}

fn fits(home: &Path) -> bool {
    // The first line is, for example: openjdk version "17.0.15" 2025-04-15
    let Ok(output) = Command::new(home.join("bin/java")).arg("-version").output() else {
        return false;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let version = text
        .split('"')
        .nth(1)
        .and_then(|version| version.split(['.', '-', '+']).next());
    version
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| (17..=22).contains(&major))
}
