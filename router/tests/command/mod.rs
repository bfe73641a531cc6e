//! Runs the binary as a person would.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

/// What a command said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the binary that belongs to this test.
pub(crate) fn keystone(args: &[&str], input: &[u8]) -> Answer {
    keystone_with(&[], args, input)
}

/// The same with variables in its environment.
pub(crate) fn keystone_with(env: &[(&str, &OsStr)], args: &[&str], input: &[u8]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystone"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEYSTONE_") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .envs(env.iter().copied())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it has a standard input");
    // A command that reads nothing may have ended before.
    let _broken_pipe = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("it says text");
    Answer {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}
