//! Runs seeds: one, or a range of them on all cores, each in a world of its own that is dropped with its seed.

use crate::sim::check::Broken;
use crate::sim::history::Detail;
use crate::sim::plan::Plan;
use crate::sim::shorten::{fewest_faults, lines};
use crate::sim::totals::Totals;
use crate::sim::world::World;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Failures reported in full; the others are counted.
const REPORTED: usize = 3;

/// What became of one seed.
pub(crate) struct Ran {
    pub(crate) broken: Option<Broken>,
    pub(crate) totals: Totals,
    pub(crate) lines: Vec<String>,
    /// Over the whole history when it was recorded, else over figures of it.
    pub(crate) digest: u64,
}

pub(crate) fn run(plan: Plan, detail: Detail) -> Ran {
    let mut world = World::new(plan, detail);
    let broken = world.run().err();
    let full = world.plan.fixed.is_none() && broken.is_none();
    let short = world.totals.shortfall().filter(|_| full);
    let broken = broken.or_else(|| short.map(|what| Broken::new("the run's minimum", what)));
    if let Some(broken) = &broken {
        world.history.note(world.now, || format!("BROKEN {}: {}", broken.invariant, broken.what));
    }
    let lines = world.history.lines().cloned().collect();
    Ran { broken, digest: world.history.digest() ^ world.handled, totals: world.totals, lines }
}

/// Runs `seeds` seeds from `from` on; how many failed. `plan` makes each seed's.
pub(crate) fn sweep(from: u64, seeds: u64, plan: fn(u64) -> Plan) -> (Totals, u64) {
    let next = AtomicU64::new(from);
    let sum = Mutex::new((Totals::default(), 0, Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let ran = run(plan(seed), Detail::Nothing);
                    let mut sum = sum.lock().expect("no thread panics while it holds the sum");
                    sum.0.add(&ran.totals);
                    if let Some(broken) = ran.broken {
                        sum.1 += 1;
                        sum.2.push((seed, broken));
                    }
                }
            });
        }
    });
    let (totals, failed, mut failures) = sum.into_inner().expect("no thread panics while it holds the sum");
    failures.sort_by_key(|(seed, _)| *seed);
    for (n, (seed, broken)) in failures.iter().enumerate() {
        println!("seed {seed} broke {}: {}", broken.invariant, broken.what);
        if n < REPORTED {
            report(&plan(*seed), broken);
        }
    }
    (totals, failed)
}

/// Runs a failed seed again for its history, with as few faults as it needs.
fn report(plan: &Plan, broken: &Broken) {
    let short = fewest_faults(plan, broken);
    let kept: Vec<usize> = short.faults.iter().map(|due| due.id).collect();
    println!("    with {} of {} faults, {kept:?}, it breaks like this:", kept.len(), plan.faults.len());
    for line in lines(&run(short, Detail::Whole)) {
        println!("    {line}");
    }
    let fixed = if plan.fixed.is_some() { " --fixed" } else { "" };
    println!("    again: cargo test -p node --test sim -- --from {} --one --trace{fixed}", plan.seed);
}
