//! Real processes, real clients: `trebol` as its users run it, driven by lftp, curl, wget, ncftp, tnftp and Python's
//! ftplib over TLS. It looks at the product from outside only: at replies, exit codes, files, `status` and `verify`.
//!
//! `cargo test -p node --test processes -- NAME` runs the tests whose names contain NAME. A test whose client is not
//! installed is ignored with the reason, or fails where `TREBOL_REQUIRE_CLIENTS=1`; one that may not make networks is ignored,
//! or fails where `TREBOL_REQUIRE_NETWORKS=1`, and the same goes for loop devices and `TREBOL_REQUIRE_LOOP=1`. `TREBOL_LONG=1` makes files large, and `TREBOL_FILES`
//! asks for the test of large indexes.

mod append;
mod bad_peers;
mod clients;
mod cluster;
mod control;
mod cuts;
mod death;
mod disks;
mod edges;
mod full;
mod inputs;
mod kills;
mod leave;
mod ledger;

mod network;
mod ops;
mod partition;
mod prometheus;
mod readers;
mod rot;
mod scale;
mod settings;
mod shutdown;
mod stalls;
mod strangers;
mod tree;
mod verify;
mod wait;
mod watched;
mod writers;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::process::ExitCode;

/// What a test, or a step of one, comes to.
type Outcome<T = ()> = Result<T, Failed>;

/// A test, the clients it needs, and what it does.
type Story = (&'static str, &'static [&'static str], fn() -> Outcome);

/// The cluster's tests use all cores by themselves: one at a time unless told otherwise.
fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let stories = [
        tree::STORIES,
        death::STORIES,
        writers::STORIES,
        cuts::STORIES,
        strangers::STORIES,
        bad_peers::STORIES,
        inputs::STORIES,
        edges::STORIES,
        append::STORIES,
        readers::STORIES,
        partition::STORIES,
        rot::STORIES,
        leave::STORIES,
        ops::STORIES,
        prometheus::STORIES,
        settings::STORIES,
        shutdown::STORIES,
        kills::STORIES,
        disks::STORIES,
        full::STORIES,
        stalls::STORIES,
        scale::STORIES,
    ];
    let trials = stories.into_iter().flatten().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What a test needs that no package installs: the right to mount a disk of a given size.
const MOUNT: &str = "mount";
/// What a test needs that only builds for development have.
const FAILPOINTS: &str = "failpoints";
/// What a test needs that only builds with the feature `planted-bugs` have.
const PLANTED: &str = "planted bugs";
/// What a test needs that no package installs: the right to mount a file system on a loop device.
const LOOP: &str = "loop";
/// The same: the right to make networks.
const NETWORKS: &str = "networks";

fn trial(&(name, needs, run): &Story) -> Trial {
    Trial::ignorable_test(name, move || match needs.iter().find(|need| !available(need)) {
        Some(&MOUNT) => Ok(Completion::ignored_with("no right to mount a small disk")),
        Some(&PLANTED) => Ok(Completion::ignored_with("no build with the feature planted-bugs")),
        Some(&FAILPOINTS) => Ok(Completion::ignored_with("a release build has no failpoints")),
        Some(&LOOP) => lacking("no right to mount a file system on a loop device", "TREBOL_REQUIRE_LOOP"),
        Some(&scale::FILES) => Ok(Completion::ignored_with("long: TREBOL_FILES says with how many files")),
        Some(&NETWORKS) => lacking("no right to make network namespaces", "TREBOL_REQUIRE_NETWORKS"),
        Some(client) => lacking(&format!("{client} is not installed"), "TREBOL_REQUIRE_CLIENTS"),
        None => run().map(|()| Completion::Completed),
    })
}

/// Ignores a test for this reason, or fails it where the variable says that it has to run.
fn lacking(reason: &str, required: &str) -> Result<Completion, Failed> {
    if std::env::var(required).is_ok_and(|set| set == "1") {
        return Err(format!("{reason}, and {required}=1").into());
    }
    Ok(Completion::ignored_with(reason))
}

fn available(need: &str) -> bool {
    match need {
        MOUNT => clients::may_mount(),
        NETWORKS => network::may_divide(),
        LOOP => disks::may_loop(),
        PLANTED => cfg!(feature = "planted-bugs"),
        FAILPOINTS => !node::store::FAILPOINTS.is_empty(),
        scale::FILES => std::env::var(need).is_ok(),
        client => clients::installed(client),
    }
}

/// Fails with the sentence unless it holds. Tests without `libtest` have no `assert!` that counts as one.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}
