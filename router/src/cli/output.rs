//! Lines for a person. A reader that has seen enough (`| head -1`) ends no command: what it does and its exit code stay as they are.

use std::fmt::Arguments;
use std::io::{self, Write};

/// As `println!`, but a closed pipe is no panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::print(format_args!($($text)*)) };
}

/// As `eprintln!`, but a closed pipe is no panic.
macro_rules! complain {
    ($($text:tt)*) => { $crate::cli::output::print_error(format_args!($($text)*)) };
}

pub(super) use {complain, say};

pub(super) fn print(text: Arguments<'_>) {
    if let Err(error) = line(io::stdout().lock(), text) {
        print_error(format_args!("standard output can't be written: {error}"));
        std::process::exit(1);
    }
}

pub(super) fn print_error(text: Arguments<'_>) {
    // Where to would a failure be reported?
    let _written = line(io::stderr().lock(), text);
}

fn line(mut out: impl Write, text: Arguments<'_>) -> io::Result<()> {
    match writeln!(out, "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(io::ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let written = |kind| line(Fails(kind), format_args!("text"));
        assert!(written(io::ErrorKind::BrokenPipe).is_ok());
        assert!(written(io::ErrorKind::StorageFull).is_err());
    }
}
