//! `cargo test -p node --test sim [-- [--seeds N] [--from M] [--one] [--trace]]`: thousands of seeded histories of whole
//! members under faults, each checked against the invariants. Prints its totals; never part of the product.

#[path = "mod.rs"]
mod sim;

use sim::history::Detail;
use sim::plan::Plan;
use sim::runner::{run, sweep};
use sim::totals::Totals;
use std::process::ExitCode;

/// Seeds of an ordinary run.
const SEEDS: u64 = 2000;
/// Seeds run twice, to see that a seed is a history.
const TWICE: u64 = 4;
/// Share of seeds, in percent, that must see an election between two acknowledged writes.
const LEAST_ELECTED: u64 = 30;

struct Arguments {
    from: u64,
    seeds: u64,
    one: bool,
    trace: bool,
    /// What the test harness of other targets was asked for: a list, or other tests only.
    nothing: bool,
}

/// Takes what libtest takes, too, since `cargo test --workspace -- …` hands the same to every target.
fn arguments() -> Arguments {
    let mut found = Arguments { from: 1, seeds: SEEDS, one: false, trace: false, nothing: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = |or| words.next().and_then(|w| w.parse().ok()).unwrap_or(or);
        match word.as_str() {
            "--seeds" => found.seeds = number(SEEDS),
            "--from" => found.from = number(1),
            "--one" => (found.one, found.seeds) = (true, 1),
            "--trace" => found.trace = true,
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
    let began = tokio::time::Instant::now();
    let twice = (0..TWICE.min(arguments.seeds)).map(|n| arguments.from + n);
    let unlike: Vec<u64> = twice.filter(|seed| digest(*seed) != digest(*seed)).collect();
    let (totals, mut failed) = sweep(arguments.from, arguments.seeds);
    print(&totals, arguments.seeds);
    println!("{:.1} s of real time", began.elapsed().as_secs_f64());
    for seed in &unlike {
        println!("seed {seed} ran differently twice");
    }
    failed += unlike.len() as u64;
    let share = totals.acked_after_election * 100 / arguments.seeds.max(1);
    if share < LEAST_ELECTED {
        println!("only {share} % of the seeds saw an election between acknowledged writes; {LEAST_ELECTED} % are due");
        failed = failed.max(1);
    }
    println!("{} passed, {failed} failed", arguments.seeds.saturating_sub(failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn digest(seed: u64) -> u64 {
    run(Plan::new(seed), Detail::Tail).digest
}

fn one(arguments: &Arguments) -> ExitCode {
    let detail = if arguments.trace { Detail::Trace } else { Detail::Tail };
    println!("{:?}", Plan::new(arguments.from));
    let ran = run(Plan::new(arguments.from), detail);
    if !arguments.trace {
        ran.lines.iter().for_each(|line| println!("{line}"));
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
    println!("acknowledged {}, refused {:?}, replicas replaced {}", t.acks, t.refusals, t.replacements);
    println!("reads without a leader {}, blobs collected {}", t.local_reads, t.dropped);
    println!("epochs {}, elections of another leader {}, stale twins at rest {}", t.epochs, t.elections, t.stale);
    println!("seeds with an election between acknowledged writes {} %", t.acked_after_election * 100 / seeds.max(1));
    println!("faults {}, with an operation open {}: {:?}", t.all_faults(), t.in_flight, t.faults);
    println!("one leader at most {} ms after healing", t.led_after / 1000);
}
