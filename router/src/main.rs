//! The `keystone` binary: see [`keystone::cli`].

fn main() -> std::process::ExitCode {
    keystone::cli::main()
}
