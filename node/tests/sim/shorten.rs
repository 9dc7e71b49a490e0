//! Makes a failure readable: leaves out faults that it does not need, and lines of its history that say nothing about what
//! broke. Never changes what broke: a shorter run counts only if it breaks the same invariant.

use crate::sim::check::Broken;
use crate::sim::history::Detail;
use crate::sim::plan::Plan;
use crate::sim::runner::{Ran, run};
use std::collections::BTreeSet;

/// Lines shown at most, the last ones.
const SHOWN: usize = 120;
/// Lines that are always shown: what was done to the cluster, and who led it when.
const ALWAYS: [&str; 15] = [
    "FAULT",
    "CRASH",
    "START",
    "PAUSE",
    "CUT",
    "MEND",
    "JOIN",
    "WIPE",
    "ROT",
    "FIXED",
    "HEAL",
    "BROKEN",
    "TookOver",
    "Serving",
    "Leaderless",
];

/// The run with the fewest faults found that breaks the same invariant: each is left out once.
pub(crate) fn fewest_faults(plan: &Plan, broken: &Broken) -> Plan {
    let mut short = plan.clone();
    let mut at = 0;
    while at < short.faults.len() {
        let mut without = short.clone();
        without.faults.remove(at);
        if breaks(&without, broken) {
            short = without;
        } else {
            at += 1;
        }
    }
    short
}

fn breaks(plan: &Plan, broken: &Broken) -> bool {
    run(plan.clone(), Detail::Nothing).broken.is_some_and(|b| b.invariant == broken.invariant)
}

/// The lines that concern what broke: its paths, operations, positions and epochs, and the operations at those positions.
pub(crate) fn lines(ran: &Ran) -> Vec<String> {
    let Some(broken) = &ran.broken else { return vec![] };
    let mut wanted: BTreeSet<String> = words(&broken.what).collect();
    let concerned = |wanted: &BTreeSet<String>, line: &str| words(line).any(|word| wanted.contains(&word));
    let more: Vec<String> =
        ran.lines.iter().filter(|line| concerned(&wanted, line)).flat_map(|line| words(line)).collect();
    wanted.extend(more.iter().filter(|word| is_operation(word)).cloned());
    let epochs: Vec<String> =
        wanted.iter().filter_map(|word| word.split_once('/').map(|(epoch, _)| epoch.to_owned())).collect();
    wanted.extend(epochs.into_iter().filter(|epoch| !epoch.is_empty()));
    let shown =
        ran.lines.iter().filter(|line| ALWAYS.iter().any(|word| line.contains(word)) || concerned(&wanted, line));
    let mut shown: Vec<String> = shown.cloned().collect();
    shown.split_off(shown.len().saturating_sub(SHOWN))
}

/// The words of a line that name something: paths, operations, positions, epochs, tokens.
fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    // The time of a line looks like an epoch.
    let line = line
        .get(9..)
        .filter(|_| line.starts_with(' ') || line.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or(line);
    let split = line.split(|c: char| c.is_whitespace() || ",;:(){}[]\"".contains(c));
    let names = |word: &&str| word.len() > 1 && (word.starts_with('/') || is_operation(word) || is_position(word));
    split.filter(names).map(str::to_owned)
}

fn is_operation(word: &str) -> bool {
    word.len() == 8 && word.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_position(word: &str) -> bool {
    word.split_once('.').is_some_and(|(counter, rest)| {
        !rest.is_empty() && !counter.is_empty() && counter.bytes().all(|b| b.is_ascii_digit())
    })
}
