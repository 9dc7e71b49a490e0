//! The checker against a search without cuts, on thousands of histories of up to six operations: every order that real time
//! allows, with real contents instead of reduced states.

use crate::recorded::Op;
use crate::rng::Rng;
use histories::{Act, FileModel, Initially, Limits, Operation, Seen, Verdict, check};

/// Histories compared.
const HISTORIES: u64 = 40_000;

type File = Option<Vec<u64>>;

/// Whether some order explains all operations with an outcome; those done are marked.
fn explained(history: &[Op], done: &mut Vec<bool>, file: &File, any: &[File]) -> bool {
    let left = |n: usize, done: &[bool]| !done[n] && history[n].returned.is_some();
    if !(0..history.len()).any(|n| left(n, done)) {
        return true;
    }
    (0..history.len()).filter(|n| !done[*n]).collect::<Vec<_>>().into_iter().any(|n| {
        let op = &history[n];
        let late = |m: usize| left(m, done) && history[m].returned.is_some_and(|at| at < op.invoked);
        if (0..history.len()).any(late) || !shows(file, &op.op.seen) {
            return false;
        }
        done[n] = true;
        let found = results(&op.op.act, file, any).iter().any(|file| explained(history, done, file, any));
        done[n] = false;
        found
    })
}

fn shows(file: &File, seen: &Seen<u64>) -> bool {
    match seen {
        Seen::Nothing => true,
        Seen::Absent => file.is_none(),
        Seen::Present => file.is_some(),
        Seen::Content(content) => file.as_ref() == Some(content),
    }
}

fn results(act: &Act<u64>, file: &File, any: &[File]) -> Vec<File> {
    match act {
        Act::Read => vec![file.clone()],
        Act::Put(content) => vec![Some(content.clone())],
        Act::Append(piece) => vec![Some([file.clone().unwrap_or_default(), vec![*piece]].concat())],
        Act::Delete => vec![None],
        Act::Place => any.iter().filter(|file| file.is_some()).cloned().collect(),
        Act::Disturb => any.to_vec(),
    }
}

/// Everything that may lie where nobody said what: the beginnings of what was read, something else, nothing.
fn anything(history: &[Op]) -> Vec<File> {
    let mut any = vec![None, Some(vec![999])];
    for op in history {
        if let Seen::Content(content) = &op.op.seen {
            any.extend((0..=content.len()).map(|n| Some(content[..n].to_vec())));
        }
    }
    any.sort();
    any.dedup();
    any
}

/// Any operations at all, their pieces few, so that they have something to do with each other.
fn random(rng: &mut Rng) -> Vec<Op> {
    let span = 1 + rng.below(16);
    (0..1 + rng.below(6))
        .map(|_| {
            let (piece, invoked) = (rng.below(3), rng.below(20));
            let (act, rare) = match rng.below(20) {
                0..=7 => (Act::Read, 0),
                8..=11 => (Act::Put(if rng.chance(15) { vec![] } else { vec![piece] }), 70),
                12..=15 => (Act::Append(piece), 80),
                16..=17 => (Act::Delete, 40),
                18 => (Act::Place, 60),
                _ => (Act::Disturb, 60),
            };
            let seen = match rng.below(10) {
                _ if rng.chance(rare) => Seen::Nothing,
                0..=2 => Seen::Absent,
                3 => Seen::Present,
                _ => Seen::Content((0..rng.below(4)).map(|_| rng.below(3)).collect()),
            };
            let returned = (!rng.chance(20)).then(|| invoked + rng.below(span));
            Operation { op: act.seeing(seen), invoked, returned }
        })
        .collect()
}

#[test]
fn short_histories_get_the_answer_of_a_search_without_cuts() {
    let mut rng = Rng(7);
    let mut good = 0;
    for n in 0..HISTORIES {
        let history = random(&mut rng);
        let initially = if n % 3 == 0 { Initially::Unknown } else { Initially::Absent };
        let any = anything(&history);
        let starts = if initially == Initially::Unknown { any.clone() } else { vec![None] };
        let mut done = vec![false; history.len()];
        let due = starts.iter().any(|file| explained(&history, &mut done, file, &any));
        let (model, operations) = FileModel::of(&history, initially);
        let found = check(&model, &operations, Limits::default()).verdict;
        let same = match &found {
            Verdict::Linearizable(order) => due && in_real_time(&history, order),
            Verdict::Broken(_) => !due,
            Verdict::GaveUp { .. } => false,
        };
        assert!(same, "history {n} is linearizable: {due}, found {found:?}: {history:#?}");
        good += u64::from(due);
    }
    let share = good * 100 / HISTORIES;
    println!("{good} of {HISTORIES} are linearizable");
    assert!((10..=90).contains(&share), "{share} % are linearizable: that decides little");
}

/// Whether an order keeps to real time and leaves out nothing that has an outcome.
fn in_real_time(history: &[Op], order: &[usize]) -> bool {
    let late = |n: usize, m: usize| history[m].returned.is_some_and(|at| at < history[n].invoked);
    let ordered = order.iter().enumerate().all(|(at, n)| order[at + 1..].iter().all(|m| !late(*n, *m)));
    ordered && (0..history.len()).all(|n| history[n].returned.is_none() || order.contains(&n))
}
