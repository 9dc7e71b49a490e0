//! Trébol from outside, told as user stories: real nodes in containers, real clients over TLS, one file a story.
//!
//! `cargo test -p e2e -- NAME` tells the stories whose names contain NAME. Without an engine those that can do with processes
//! do, and the others are ignored with the reason; where `TREBOL_REQUIRE_DOCKER=1` that is a failure. Everything that is made
//! carries the run's label and is removed, also by Ctrl-C; what a killed run left is removed by the next one.

#[path = "stories/address.rs"]
mod address;
#[path = "stories/leader.rs"]
mod leader;
#[path = "stories/partition.rs"]
mod partition;
#[path = "stories/rejoin.rs"]
mod rejoin;
#[path = "stories/rolling.rs"]
mod rolling;
#[path = "stories/runs.rs"]
mod runs;
#[path = "stories/store.rs"]
mod store;
#[path = "stories/strangers.rs"]
mod strangers;
#[path = "stories/versions.rs"]
mod versions;
#[path = "stories/wire.rs"]
mod wire;
#[path = "stories/work.rs"]
mod work;

use anyhow::Result;
use e2e::bed::{clear_on_signals, lacking, stopping};
use e2e::{Bed, Cluster, Need};
use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// What is told, on the shared cluster, which is whole at the beginning and may be as it likes at the end.
type Tale = for<'a> fn(&'a Bed, &'a mut Cluster) -> LocalBoxFuture<'a, Result<()>>;

/// A story: its name, what it needs, what is told.
type Story = (&'static str, Need, Tale);

/// What all stories share, made by the first one that is told; or why there is none.
type Shared = Arc<OnceLock<Result<Bed, String>>>;

/// In this order: what is least likely to fail comes first, and what leaves the cluster as it was.
const STORIES: [Story; 11] = [
    store::STORY,
    runs::INTERRUPTED,
    runs::WITHOUT_ENGINE,
    strangers::STORY,
    leader::STORY,
    rejoin::STORY,
    address::STORY,
    partition::STORY,
    rolling::STORY,
    wire::STORY,
    versions::STORY,
];

/// One at a time: they share a cluster, and the machine.
fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Err(error) = clear_on_signals() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let bed: Shared = Arc::default();
    let trials = STORIES.iter().map(|story| trial(story, &bed)).collect();
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    while stopping() {
        // What is removed is removed by another thread, which ends the process with the code for that.
        std::thread::park();
    }
    if let Some(Ok(bed)) = bed.get()
        && let Err(error) = bed.clear()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    code
}

fn trial(&(name, need, tale): &Story, bed: &Shared) -> Trial {
    let bed = bed.clone();
    Trial::ignorable_test(name, move || match lacking(need) {
        Err(reason) => Err(reason.into()),
        Ok(Some(reason)) => Ok(Completion::ignored_with(reason)),
        Ok(None) => {
            let make = || Bed::make(Path::new(env!("CARGO_BIN_EXE_tap"))).map_err(|error| format!("{error:#}"));
            let bed = bed.get_or_init(make).as_ref().map_err(|error| Failed::from(error.clone()))?;
            let told = bed.runtime.block_on(tell(bed, tale));
            told.map(|()| Completion::Completed).map_err(|error| format!("{error:#}").into())
        }
    })
}

async fn tell(bed: &Bed, tale: Tale) -> Result<()> {
    let mut cluster = bed.cluster().await?;
    match tale(bed, &mut cluster).await {
        Ok(()) => {
            bed.give_back(cluster).await;
            Ok(())
        }
        Err(error) => Err(cluster.end_with(error).await),
    }
}
