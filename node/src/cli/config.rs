//! `trebol config check`: whether a node could start with these settings. It reads what `serve` would read, and opens
//! neither the data directory nor a port.

use super::flags::Layers;
use super::serve::start_log;
use super::{Failure, print};
use crate::serve::faults;

/// Settings of a node
#[derive(Debug, clap::Args)]
pub(super) struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Check(Box<Check>),
}

/// Check the settings and the files they name, and print the settings that count
///
/// Takes what `trebol serve` takes, and prints a file that it takes: secrets are in it as paths only. Everything that is wrong
/// is one sentence, and the exit code is then 2. Opens neither the data directory nor a port.
#[derive(Debug, clap::Args)]
struct Check {
    #[command(flatten)]
    layers: Layers,
}

impl Config {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let What::Check(check) = &self.what;
        check.run()
    }
}

impl Check {
    fn run(&self) -> Result<(), Failure> {
        let settings = self.layers.load().map_err(|error| Failure::Usage(error.to_string()))?;
        // What is no mistake and worth a warning is logged, as `serve` does.
        start_log(&settings)?;
        let found = faults(&settings);
        if !found.is_empty() {
            return Err(Failure::Usage(found.join("\ntrebol: ")));
        }
        print(&toml::to_string(&settings).map_err(Failure::runtime)?)
    }
}
