//! The command `swarm`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    swarm::cli::run()
}
