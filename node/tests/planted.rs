//! Plants one bug after the other into the members and lets the simulator look for it: a checker that never cries is no
//! checker. Needs the feature `planted-bugs`; prints how many seeds each bug took.

#[expect(dead_code, reason = "the sweep and its totals are the other target's")]
mod sim;

use node::cluster::planted::Planted;
use sim::history::Detail;
use sim::plan::Plan;
use sim::runner::run;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Seeds tried before a bug counts as not found.
const MOST_SEEDS: u64 = 3000;

/// Each bug with the invariant that must be seen to break.
const BUGS: [(Planted, &str); 24] = [
    (Planted::LeaderAloneCommits, "I1"),
    (Planted::AckBeforePersist, "I1"),
    (Planted::CommitWithoutAll, "I1"),
    (Planted::AppendAnywhere, "I1"),
    (Planted::DropLosers, "I2"),
    (Planted::TruncatedTooEarly, "I2"),
    (Planted::TransferKeepsAll, "I2"),
    (Planted::NoPromise, "I4"),
    (Planted::EpochNotPersisted, "I4"),
    (Planted::NoFencing, "I6"),
    (Planted::FlatLocks, "I6"),
    (Planted::HalfRename, "I10"),
    (Planted::NoDedupe, "I9"),
    (Planted::WallClock, "I8"),
    (Planted::DeleteForgotten, "I8"),
    (Planted::AppendTwice, "I9"),
    (Planted::RepairRestamps, "I9"),
    (Planted::MergeTooEarly, "I3"),
    (Planted::SurplusTooEarly, "I3"),
    (Planted::BadCopiesCount, "I3"),
    (Planted::DrainIgnored, "I3"),
    (Planted::ZonesIgnored, "I3"),
    (Planted::StaleReads, "I5"),
    (Planted::StaleReads, ONE_ORDER),
];

/// I5 as the check of whole histories sees it, when no single read is judged.
const ONE_ORDER: &str = "I5 by one order";

/// The first seed that breaks what the bug must break, with what broke.
fn hunt(bug: Planted, invariant: &str) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(1), AtomicBool::new(false));
    let first: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > MOST_SEEDS || found.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut plan = Plan::new(seed);
                    plan.config.planted = bug;
                    plan.reads_unjudged = invariant == ONE_ORDER;
                    let broken = run(plan, Detail::Nothing).broken.filter(|b| b.invariant == invariant);
                    if let Some(broken) = broken {
                        found.store(true, Ordering::Relaxed);
                        let mut first = first.lock().expect("no thread panics while it holds the first");
                        if first.as_ref().is_none_or(|(known, _)| seed < *known) {
                            *first = Some((seed, broken.what));
                        }
                    }
                }
            });
        }
    });
    first.into_inner().expect("no thread panics while it holds the first")
}

fn main() -> ExitCode {
    let (mut found, mut missed) = (0, 0);
    // Words on the command line name the bugs to look for, all of them unless there are some.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let named = |bug: Planted| wanted.is_empty() || wanted.iter().any(|word| format!("{bug:?}").contains(word));
    for (bug, invariant) in BUGS.into_iter().filter(|(bug, _)| named(*bug)) {
        match hunt(bug, invariant) {
            Some((seed, what)) => {
                found += 1;
                println!("{bug:?}: {invariant} broke within {seed} seeds: {what}");
            }
            None => {
                missed += 1;
                println!("{bug:?}: {invariant} held for {MOST_SEEDS} seeds; its checker is blind");
            }
        }
    }
    println!("{found} passed, {missed} failed");
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
