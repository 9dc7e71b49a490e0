//! The `trebol` binary: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::cli::run()
}
