//! The `freehold` command: parse, dispatch, exit code.

fn main() -> std::process::ExitCode {
    freehold_server::cli::main()
}
