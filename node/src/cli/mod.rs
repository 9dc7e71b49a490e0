//! The `trebol` command: `serve`, `dev`, `status`, `healthcheck`, `config`, `drain`, `forget`, `verify`, `passwd`. It reads
//! arguments, calls the library and prints; what is wrong is one sentence on stderr. Exit code 2: usage or settings; 1:
//! anything that went wrong later.

mod config;
mod dev;
mod drain;
mod flags;
mod forget;
mod healthcheck;
mod passwd;
mod serve;
mod status;
mod verify;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Trébol: a replicated, self-healing FTP(S) server.
#[derive(Debug, Parser)]
#[command(name = "trebol", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Dev(dev::Dev),
    Status(status::StatusOf),
    Healthcheck(Box<healthcheck::Healthcheck>),
    Config(config::Config),
    Drain(drain::Drain),
    Forget(forget::Forget),
    Verify(verify::Verify),
    Passwd(passwd::Passwd),
}

/// Why a command failed: what to print, and the exit code.
#[derive(Debug)]
enum Failure {
    /// Arguments or settings: 2.
    Usage(String),
    /// Anything later: 1.
    Runtime(String),
    /// Said already; 1.
    Told,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    // clap itself exits with 2 on wrong usage and with 0 after --help.
    let result = match Cli::parse().command {
        Command::Serve(serve) => serve.run(),
        Command::Dev(dev) => dev.run(),
        Command::Status(status) => status.run(),
        Command::Healthcheck(check) => check.run(),
        Command::Config(config) => config.run(),
        Command::Drain(drain) => drain.run(),
        Command::Forget(forget) => forget.run(),
        Command::Verify(verify) => verify.run(),
        Command::Passwd(passwd) => passwd.run(),
    };
    let (sentence, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Told) => return ExitCode::from(1),
        Err(Failure::Usage(sentence)) => (sentence, 2),
        Err(Failure::Runtime(sentence)) => (sentence, 1),
    };
    eprintln!("trebol: {sentence}");
    ExitCode::from(code)
}

impl Failure {
    /// For `map_err`: something that went wrong while running.
    fn runtime(error: impl std::fmt::Display) -> Self {
        Self::Runtime(error.to_string())
    }
}

/// Prints to stdout. A reader that went away (`| head`) is told like any other error, not by a panic.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(|error| Failure::Runtime(format!("cannot print: {error}")))
}

/// A runtime for commands that do little.
fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let build = tokio::runtime::Builder::new_current_thread().enable_all().build();
    build.map_err(|error| Failure::Runtime(format!("cannot start: {error}")))
}

/// Where a node's data are unless told otherwise.
const DATA: &str = "/var/lib/trebol";

/// Where `trebol dev` keeps its cluster unless told otherwise (XDG base directories).
fn dev_directory() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XDG_DATA_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/share")))
        .map_or_else(|| PathBuf::from("trebol-dev"), |base| base.join("trebol/dev"))
}
