//! `cargo test -p node --test sim [-- [--seeds N] [--from M] [--fixed] [--one [--trace] [--short]]]`: thousands of seeded
//! histories of whole members under faults, each checked against the invariants. `--fixed` breaks the network once instead
//! and leaves it like that; `--short` leaves out what a failure does not need; `--crowd N` prints figures of N nodes. Never
//! part of the product.

#[path = "mod.rs"]
mod sim;

use sim::history::Detail;
use sim::plan::Plan;
use sim::runner::{run, sweep};
use sim::shorten::{fewest_faults, lines};
use sim::totals::Totals;
use std::process::ExitCode;

/// Seeds of an ordinary run.
const SEEDS: u64 = 5000;
/// Seeds run twice, to see that a seed is a history.
const TWICE: u64 = 4;
/// Seeds of an ordinary run whose network stays broken.
const FIXED_SEEDS: u64 = 100;
/// Share of seeds, in percent, that must see both an election between two acknowledged writes and a network that heals
/// after acknowledged writes in conflict.
const LEAST_BOTH: u64 = 30;

#[derive(Debug, Default)]
struct Arguments {
    from: u64,
    seeds: u64,
    one: bool,
    trace: bool,
    short: bool,
    fixed: bool,
    /// Figures of a cluster of so many nodes instead.
    crowd: Option<usize>,
    /// What the test harness of other targets was asked for: a list, or other tests only.
    nothing: bool,
}

/// Takes what libtest takes, too, since `cargo test --workspace -- …` hands the same to every target.
fn arguments() -> Arguments {
    let mut found = Arguments { from: 1, seeds: SEEDS, ..Arguments::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = |or| words.next().and_then(|w| w.parse().ok()).unwrap_or(or);
        match word.as_str() {
            "--seeds" => found.seeds = number(SEEDS),
            "--from" => found.from = number(1),
            "--crowd" => found.crowd = Some(number(100) as usize),
            "--one" => (found.one, found.seeds) = (true, 1),
            "--trace" => found.trace = true,
            "--short" => found.short = true,
            "--fixed" => found.fixed = true,
            "--list" | "--ignored" => found.nothing = true,
            "--format" | "--test-threads" | "--skip" | "--color" | "--logfile" | "-Z" => drop(words.next()),
            word if word.starts_with('-') => {}
            filter => found.nothing |= !"simulator".contains(filter),
        }
    }
    found
}

fn main() -> ExitCode {
    let arguments = arguments();
    if arguments.nothing {
        return ExitCode::SUCCESS;
    }
    if arguments.one {
        return one(&arguments);
    }
    if let Some(nodes) = arguments.crowd {
        let ran = sim::crowd::crowd(nodes).map_err(|broken| println!("{}: {}", broken.invariant, broken.what));
        return if ran.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let began = tokio::time::Instant::now();
    let mut failed = if arguments.fixed { fixed(arguments.from, arguments.seeds) } else { broken(&arguments) };
    if !arguments.fixed {
        let seeds = FIXED_SEEDS.min(arguments.seeds);
        failed += fixed(arguments.from, seeds);
    }
    println!("{:.1} s of real time", began.elapsed().as_secs_f64());
    println!("{} passed, {failed} failed", arguments.seeds.saturating_sub(failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Seeds with faults; how many failed.
fn broken(arguments: &Arguments) -> u64 {
    let twice = (0..TWICE.min(arguments.seeds)).map(|n| arguments.from + n);
    let unlike: Vec<u64> = twice.filter(|seed| digest(*seed) != digest(*seed)).collect();
    let (totals, mut failed) = sweep(arguments.from, arguments.seeds, Plan::new);
    print(&totals, arguments.seeds);
    for seed in &unlike {
        println!("seed {seed} ran differently twice");
    }
    failed += unlike.len() as u64;
    let share = totals.both * 100 / arguments.seeds.max(1);
    if share < LEAST_BOTH {
        println!("only {share} % of the seeds saw an election and a healed conflict; {LEAST_BOTH} % are due");
        failed = failed.max(1);
    }
    failed
}

/// Seeds whose network breaks once and stays like that; how many failed.
fn fixed(from: u64, seeds: u64) -> u64 {
    let (totals, failed) = sweep(from, seeds, Plan::fixed);
    println!(
        "{seeds} seeds with a network that stays broken: {} epochs, at most {} in a minute",
        totals.epochs, totals.late_epochs
    );
    println!(
        "acknowledged {}, one leader at most {} ms after the last disturbance",
        totals.acks,
        totals.led_after / 1000
    );
    failed
}

fn digest(seed: u64) -> u64 {
    run(Plan::new(seed), Detail::Tail).digest
}

fn one(arguments: &Arguments) -> ExitCode {
    let detail = if arguments.trace { Detail::Trace } else { Detail::Whole };
    let mut plan = if arguments.fixed { Plan::fixed(arguments.from) } else { Plan::new(arguments.from) };
    if arguments.short
        && let Some(broken) = run(plan.clone(), Detail::Nothing).broken
    {
        plan = fewest_faults(&plan, &broken);
    }
    println!("{plan:?}");
    let ran = run(plan, detail);
    if !arguments.trace {
        lines(&ran).iter().for_each(|line| println!("{line}"));
    }
    print(&ran.totals, 1);
    println!("digest {:016x}", ran.digest);
    match ran.broken {
        Some(broken) => {
            println!("seed {} broke {}: {}", arguments.from, broken.invariant, broken.what);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn print(totals: &Totals, seeds: u64) {
    let t = totals;
    println!("{seeds} seeds, {} s simulated under load, {} s in all", t.loaded / 1_000_000, t.rested / 1_000_000);
    println!("operations {}, of which change {} and read {}", t.ops, t.changes, t.reads);
    println!(
        "acknowledged {}, of which appends to what was there {}, refused {:?}, replicas replaced {}",
        t.acks, t.appended, t.refusals, t.replacements
    );
    println!("directories moved with what was in them {}, operations in parts {}", t.moved, t.parted);
    println!(
        "reads without a leader {}, refused for want of the leader's records {}, blobs collected {}",
        t.local_reads, t.refused_reads, t.dropped
    );
    println!(
        "blobs copied by repair {}, made of others {}, bad copies found {}, three copies of all at most {} ms after rest",
        t.fetched,
        t.merged,
        t.condemned,
        t.repaired_after / 1000
    );
    println!(
        "explained by one order {} of {} answers, in {} windows of paths",
        t.order.placed, t.order.answered, t.order.windows
    );
    println!("epochs {}, elections of another leader {}, merge records {}", t.epochs, t.elections, t.merges);
    println!("indexes taken over {}", t.transfers);
    println!("partitions {}, conflicts acknowledged {}, stale twins at rest {}", t.partitions, t.conflicts, t.stale);
    let share = |n: u64| n * 100 / seeds.max(1);
    println!("seeds with an election between acknowledged writes {} %", share(t.acked_after_election));
    println!(
        "with a network healed after acknowledged conflicts {} %, with both {} %",
        share(t.healed_conflict),
        share(t.both)
    );
    println!("faults {}, with an operation open {}: {:?}", t.all_faults(), t.in_flight, t.faults);
    println!("one leader at most {} ms after the last disturbance", t.led_after / 1000);
}
