//! Histories of 1,000 operations by 8 clients on one file, as recorded and then broken in known ways.

use crate::recorded::{Op, Recipe, record};
use histories::{Act, Blocked, FileModel, Initially, Limits, Seen, Verdict, check};

/// Seeds of each kind.
const SEEDS: u64 = 20;
/// Steps that 1,000 operations may take, broken or not. A bound in seconds would judge the machine.
const STEPS: u64 = 50_000;

fn verdict(history: &[Op]) -> Verdict {
    let (model, operations) = FileModel::of(history, Initially::Absent);
    let checked = check(&model, &operations, Limits::default());
    assert!(checked.steps <= STEPS, "{} steps: {:?}", checked.steps, checked.verdict);
    checked.verdict
}
fn blocked(history: &[Op]) -> Blocked {
    match verdict(history) {
        Verdict::Broken(blocked) => blocked,
        other => panic!("taken for good: {other:?}"),
    }
}
fn recipe(seed: u64) -> Recipe {
    Recipe { seed, ..Recipe::default() }
}
fn before(one: &Op, other: &Op) -> bool {
    one.returned.is_some_and(|at| at < other.invoked)
}
fn content(op: &Op) -> Option<&Vec<u64>> {
    if let Seen::Content(content) = &op.op.seen { Some(content) } else { None }
}

#[test]
fn real_histories_are_linearizable() {
    for seed in 1..=SEEDS {
        let verdict = verdict(&record(&recipe(seed)));
        assert!(matches!(verdict, Verdict::Linearizable(_)), "seed {seed}: {verdict:?}");
    }
}

#[test]
fn real_histories_with_unknown_outcomes_are_linearizable() {
    for seed in 1..=SEEDS {
        let verdict = verdict(&record(&Recipe { unknown: 5, ..recipe(seed) }));
        assert!(matches!(verdict, Verdict::Linearizable(_)), "seed {seed}: {verdict:?}");
    }
}

/// Lets a read return what an operation of this kind had ended before, late in the history; which read.
fn read_again(history: &mut [Op], ends: impl Fn(&Act<u64>) -> bool) -> usize {
    let whole = |op: &Op| if let Act::Put(content) = &op.op.act { Some(content.clone()) } else { None };
    for n in history.len() / 2..history.len() {
        if content(&history[n]).is_none() || history[n].op.changes() {
            continue;
        }
        let ended = history[..n].iter().rev().filter(|end| ends(&end.op.act) && before(end, &history[n]));
        let old = ended.filter_map(|end| history.iter().rev().filter(|w| before(w, end)).find_map(whole)).next();
        if let Some(old) = old {
            history[n].op.seen = Seen::Content(old);
            return n;
        }
    }
    panic!("no such read in the history");
}

#[test]
fn a_stale_read_is_found() {
    for seed in 1..=SEEDS {
        let mut history = record(&recipe(seed));
        let read = read_again(&mut history, |act| matches!(act, Act::Put(_)));
        assert_eq!(blocked(&history).operation, read, "seed {seed}");
    }
}

#[test]
fn a_resurrected_delete_is_found() {
    for seed in 1..=SEEDS {
        let mut history = record(&recipe(seed));
        let read = read_again(&mut history, |act| matches!(act, Act::Delete));
        assert_eq!(blocked(&history).operation, read, "seed {seed}");
    }
}

#[test]
fn a_stale_read_is_found_among_unknown_outcomes() {
    for seed in 1..=SEEDS {
        let mut history = record(&Recipe { unknown: 3, ..recipe(seed) });
        let read = read_again(&mut history, |act| matches!(act, Act::Put(_)));
        assert_eq!(blocked(&history).operation, read, "seed {seed}");
    }
}

/// Whether dropping this write shows: a read after it returns what began before it.
fn shows_the_loss(history: &[Op], lost: usize) -> bool {
    let began_before = |content: &Vec<u64>| {
        let wrote = |op: &&Op| match &op.op.act {
            Act::Put(put) => put[0] == content[0],
            Act::Append(piece) => *piece == content[0],
            _ => false,
        };
        history.iter().find(wrote).is_some_and(|w| before(w, &history[lost]))
    };
    history.iter().any(|op| before(&history[lost], op) && content(op).is_some_and(began_before))
}

#[test]
fn a_lost_write_is_found() {
    for seed in 1..=SEEDS {
        let whole = record(&recipe(seed));
        let writes = (whole.len() / 2..whole.len()).filter(|n| matches!(whole[*n].op.act, Act::Put(_)));
        let lossy = |lost| record(&Recipe { lost: Some(lost), ..recipe(seed) });
        let (lost, history) = writes
            .map(|lost| (lost, lossy(lost)))
            .find(|(lost, history)| shows_the_loss(history, *lost))
            .expect("some loss shows");
        let blocked = blocked(&history);
        // Not before it was answered: until then it may still come.
        assert!(history[blocked.operation].returned >= history[lost].returned, "seed {seed}: {blocked:?}");
    }
}

#[test]
fn reordered_appends_are_found() {
    for seed in 1..=SEEDS {
        let mut history = record(&recipe(seed));
        let appended = |piece: u64| history.iter().find(|op| op.op.act == Act::Append(piece));
        let one_after_the_other =
            |pair: &[u64]| appended(pair[0]).zip(appended(pair[1])).is_some_and(|(one, other)| before(one, other));
        let found = history[history.len() / 2..].iter().filter_map(content).find_map(|content| {
            content.windows(2).find(|pair| one_after_the_other(pair)).map(|pair| [pair[0], pair[1]])
        });
        let [first, second] = found.expect("some read sees two appends of which one came after the other");
        for op in &mut history {
            let Seen::Content(content) = &mut op.op.seen else { continue };
            if let Some(at) = content.windows(2).position(|pair| pair == [first, second]) {
                content.swap(at, at + 1);
            }
        }
        let stuck = &history[blocked(&history).operation];
        assert!(content(stuck).is_some_and(|c| c.contains(&first)), "seed {seed}: {stuck:?}");
    }
}

#[test]
fn the_explanation_is_a_prefix_that_holds() {
    let mut history = record(&recipe(3));
    let read = read_again(&mut history, |act| matches!(act, Act::Put(_)));
    let blocked = blocked(&history);
    let wall = history[read].returned;
    let due = history.iter().filter(|op| op.returned < wall).count();
    assert!(blocked.order.len() >= due, "{} placed of {due} that were answered before", blocked.order.len());
    assert!(!blocked.order.contains(&read));
    let placed: Vec<Op> = blocked.order.iter().map(|n| history[*n].clone()).collect();
    assert!(matches!(verdict(&placed), Verdict::Linearizable(_)));
}
